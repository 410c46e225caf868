"""``import mmrazor.models`` on torch >= 2."""

from __future__ import annotations

import importlib.abc
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

import torch

from kd_ext.errors import expected

SUBPACKAGES = (
    'mmrazor.structures.quantization',
    'mmrazor.models.quantizers',
    'mmrazor.models.fake_quants',
    'mmrazor.models.observers',
    'mmrazor.models.algorithms.quantization',
    'mmrazor.engine.runner.quantization_loops',
)
UNAVAILABLE = expected(
    'the quantization half of mmrazor',
    'usable',
    'a torch that no longer has the APIs it was written for, so kd_ext replaced it by a stub',
    'Distillation, pruning and search are not affected; for quantization use '
    'mmrazor 1.0.0 with torch 1.13, without kd_ext.',
)


def stub_razor_quantization() -> None:
    """Replaces the quantization half of mmrazor by stubs.

    mmrazor 1.0.0 imports that half with everything else, and it uses torch APIs which are gone. Any name can be
    imported from a stub; using it raises an ImportError that says why.
    """
    if (
        apis_are_gone()
        and 'mmrazor.models' not in sys.modules
        and not any(isinstance(finder, _StubFinder) for finder in sys.meta_path)
    ):
        sys.meta_path.insert(0, _StubFinder())


def apis_are_gone() -> bool:
    """Whether this torch lacks what mmrazor's quantization half imports."""
    return int(torch.__version__.split('.')[0]) >= 2


class _UnavailableMeta(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise ImportError(UNAVAILABLE)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        raise ImportError(UNAVAILABLE)


class _StubModule(types.ModuleType):
    __all__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return _UnavailableMeta(name, (), {'__module__': self.__name__})


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if any(fullname == name or fullname.startswith(f'{name}.') for name in SUBPACKAGES):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass
