"""Changes modules when they are imported, without importing them."""

from __future__ import annotations

import contextlib
import importlib.abc
import sys
from contextlib import AbstractContextManager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable


def change_when_imported(
    name: str,
    change: Callable[[ModuleType], Any] | None = None,
    around: Callable[[], AbstractContextManager] = contextlib.nullcontext,
) -> None:
    """Calls ``change(module)`` now if the module is imported, else once it is; it is imported within ``around()``.

    If two callers ask for the same change, it is called twice, and the second call must change nothing.
    """
    module = sys.modules.get(name)
    if module is None:
        job = name, change, around
        if not any(isinstance(finder, _Changer) and finder.job == job for finder in sys.meta_path):
            sys.meta_path.insert(0, _Changer(*job))
    elif change is not None:
        change(module)


class _Changer(importlib.abc.MetaPathFinder):
    """Lets the other finders find the module, and changes it after it has run."""

    def __init__(
        self, name: str, change: Callable[[ModuleType], Any] | None, around: Callable[[], AbstractContextManager]
    ) -> None:
        self.job = name, change, around

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        name, change, around = self.job
        if fullname != name:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with around():
                execute(module)
            if change is not None:
                change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one spec
        return spec
