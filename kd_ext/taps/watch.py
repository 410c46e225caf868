"""Records the calls of modules and methods during a forward pass."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, NamedTuple


class Call(NamedTuple):
    """One call: its positional arguments, what it returned, and the module or object that was called."""

    args: tuple
    result: Any
    owner: Any


class Watch(contextlib.ExitStack):
    """Context in which the calls of modules and methods are recorded.

    Outside the ``with`` block nothing stays on the objects, so copies (EMA) and pickles hold nothing of it.

    Args:
        targets: By name: a module; a list of modules, whose calls go into one list in the order they happen; or an
            object and the name of its method. A third item is a function that returns the arguments to record, for
            arguments that the model changes later.

    Attributes:
        calls: The calls of each target, by name.
    """

    def __init__(self, **targets: Any) -> None:
        super().__init__()
        self.targets = targets
        self.calls: dict[str, list[Call]] = {name: [] for name in targets}

    def __enter__(self) -> Watch:
        for name, target in self.targets.items():
            if isinstance(target, tuple):
                self._watch_method(name, *target)
                continue
            for module in dict.fromkeys(target if isinstance(target, list) else [target]):  # a shared one once
                self.callback(module.register_forward_hook(self._hook(name)).remove)
        return self

    def _hook(self, name: str) -> Callable[..., None]:
        return lambda module, args, output: self.keep(name, Call(args, output, module))

    def _watch_method(self, name: str, owner: Any, method: str, look: Callable[..., tuple] | None = None) -> None:
        function = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.keep(name, Call(look(*args) if look else args, result, owner))
            return result

        owner.__dict__[method] = watched
        self.callback(owner.__dict__.pop, method, None)

    def keep(self, name: str, call: Call) -> None:
        """Records a call of a target."""
        self.calls[name].append(call)
