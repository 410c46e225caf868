"""Keeps the calls of some modules and methods during a forward pass."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call: its positional arguments and what it returned."""

    args: tuple
    result: Any


class Watch(contextlib.ExitStack):
    """Context in which the calls of modules and methods are kept.

    Outside the ``with`` block nothing stays on the objects.

    Args:
        targets: By name a module, a list of modules whose calls go into one list in the order they happen, or a
            pair of an object and the name of its method; with a third item, a function whose tuple is kept in place
            of the arguments, for those that the model changes afterwards.

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
            modules = [target] if isinstance(target, nn.Module) else target
            for module in dict.fromkeys(modules):  # a shared one once
                self.callback(module.register_forward_hook(self._hook(name)).remove)
        return self

    def _hook(self, name: str) -> Callable[..., None]:
        return lambda module, args, output: self.calls[name].append(Call(args, output))

    def _watch_method(self, name: str, owner: Any, method: str, look: Callable[..., tuple] | None = None) -> None:
        function = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.calls[name].append(Call(look(*args) if look else args, result))
            return result

        owner.__dict__[method] = watched
        self.callback(owner.__dict__.pop, method, None)
