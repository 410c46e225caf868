"""Provides ``mmcv._ext`` where mmcv was installed without it."""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import logging
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from mmengine.logging import print_log

from kd_ext.errors import expected

NAME = 'mmcv._ext'
# what mmcv.ops asks about the build
FACTS = dict(get_compiler_version='none', get_compiling_cuda_version='none')


def provide_missing_ops() -> None:
    """Lets ``import mmcv.ops`` find operators in torch if the installed mmcv has no compiled ones.

    Nothing changes if ``mmcv._ext`` exists, and where it appears later it is preferred.
    """
    package = importlib.util.find_spec('mmcv')
    if (
        package is not None
        and PathFinder.find_spec(NAME, package.submodule_search_locations) is None
        and not any(isinstance(finder, _Finder) for finder in sys.meta_path)
    ):
        sys.meta_path.append(_Finder())  # last, so only asked for what nothing else finds


def how_to_compile() -> str:
    """The command that replaces the stand-in by compiled operators."""
    if (Path(__file__).parents[2] / 'tools/setup.sh').is_file():
        return 'KD_EXT_OPS=compiled bash tools/setup.sh'
    found = {name: one.version for name in ('onedl-mmcv', 'mmcv-lite') for one in distributions(name=name)}
    name, version = next(iter(found.items()), ('mmcv', '2.1.0'))
    pip = f'{sys.executable} -m pip'
    return (
        f'{pip} uninstall -y {name}; {pip} install "setuptools<81" wheel ninja cython && MMCV_WITH_OPS=1 {pip} '
        f'install --no-deps --no-cache-dir --no-build-isolation {name.replace("-lite", "")}=={version}'
    )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == NAME else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        from kd_ext.ops.operators import OPS  # not loaded where mmcv has its own

        vars(module).update({name: _announced(op) for name, op in OPS.items()})
        vars(module).update({name: functools.partial(str, text) for name, text in FACTS.items()})


class _StandIn(ModuleType):
    """Has every operator that mmcv asks for at import; one that is missing fails when it is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            from kd_ext.ops.operators import OPS

            raise NotImplementedError(
                expected(
                    f'the operator {name} of mmcv',
                    'compiled',
                    f'an mmcv without compiled operators, and kd_ext replaces only {", ".join(OPS)}',
                    f'Compile them: {how_to_compile()}',
                )
            )

        return missing


def _announced(op: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(op)
    def call(*args: Any, **kwargs: Any) -> Any:
        _announce()
        return op(*args, **kwargs)

    return call


@functools.cache
def _announce() -> None:
    print_log(
        'mmcv has no compiled operators here: NMS, RoIAlign, the focal loss and (on a GPU) deformable attention run '
        f'in torch, by the slow route of kd_ext. The results are the same. To compile them: {how_to_compile()}',
        'current',
        logging.WARNING,
    )
