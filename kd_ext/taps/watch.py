"""Keeps the calls of some modules and methods during a forward pass."""

from typing import Any, NamedTuple

from torch import nn


class Call(NamedTuple):
    """One call: its positional arguments and what it returned."""

    args: tuple
    result: Any


class Watch:
    """Context in which the calls of modules and methods are kept.

    Outside the ``with`` block nothing stays on the objects.

    Args:
        targets (dict[str, object]): A module, a list of modules whose calls go into one list in the order they
            happen, or a pair of an object and the name of its method; with a third item, a function whose tuple is
            kept in place of the arguments, for those that the model changes afterwards.
    """

    def __init__(self, **targets):
        self.targets = targets
        self.calls = {name: [] for name in targets}
        self._undo = []

    def __enter__(self):
        for name, target in self.targets.items():
            if isinstance(target, tuple):
                self._watch_method(name, *target)
                continue
            modules = [target] if isinstance(target, nn.Module) else target
            for module in dict.fromkeys(modules):  # a shared one once
                self._undo.append(
                    module.register_forward_hook(
                        lambda module, args, output, name=name: self._keep(name, args, output)
                    ).remove
                )
        return self

    def __exit__(self, *error):
        for undo in self._undo:
            undo()
        self._undo.clear()

    def _keep(self, name, args, result):
        self.calls[name].append(Call(args, result))

    def _watch_method(self, name, owner, method, look=None):
        function = getattr(owner, method)

        def watched(*args, **kwargs):
            result = function(*args, **kwargs)
            self._keep(name, look(*args) if look else args, result)
            return result

        owner.__dict__[method] = watched
        self._undo.append(lambda: owner.__dict__.pop(method, None))
