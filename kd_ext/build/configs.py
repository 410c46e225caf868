"""Finds and reads configs, and tells those that distill."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Mapping

from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.config.utils import MODULE2PACKAGE

from kd_ext.build.extras import require_extra
from kd_ext.errors import explaining, file_error, near_matches

ALGORITHM = 'DetectionDistill'
SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def type_name(cfg: Mapping[str, Any]) -> str:
    """The name of a config's ``type`` without scope or module; ``''`` where it has none.

    ``type`` may be a name (``'kd_ext.RCKALoss'``), a class, or the lazy object of a pure Python config.
    """
    return _names(cfg)[0]


def distills(model: Any) -> bool:
    """Whether a model config is one of :class:`kd_ext.algorithms.DetectionDistill` or of a subclass."""
    return isinstance(model, Mapping) and any(name.endswith(ALGORITHM) for name in _names(model))


def _names(cfg: Mapping[str, Any]) -> list[str]:
    """The name of the type and, of a class, those of its bases."""
    kind = cfg.get('type')
    if isinstance(kind, (LazyObject, LazyAttr)):
        kind = kind.build()
    if isinstance(kind, type):
        return [cls.__name__ for cls in kind.__mro__]
    return [getattr(kind, '__name__', str(kind or '')).rpartition('.')[2]]


def find_config(name: str | os.PathLike, key: str = 'config') -> Path:
    """The file behind a path or a ``pkg::name``.

    Relative paths are looked up in the working directory; ``key`` is the setting that the name was given to, for
    messages. MMEngine's ``get_config`` is not used: it calls pip for a package that is not installed.

    Raises:
        FileNotFoundError: No such config; the message lists near matches.
        ModuleNotFoundError: The package belongs to an extra that is not installed.
    """
    name = os.fspath(name)
    package, colons, relative = name.rpartition('::')
    root = _config_folder(package, key) if colons else Path()
    path = root / Path(relative).expanduser()
    if path.is_file() and path.suffix in SUFFIXES:
        return path
    near = _neighbours(path, package + colons, root)
    raise file_error(key, f'an existing file ({", ".join(SUFFIXES)})', repr(name), near)


def read_config(name: str | os.PathLike, key: str = 'config') -> Config:
    """The config behind a path or a ``pkg::name``.

    Raises:
        FileNotFoundError: See :func:`find_config`.
        ValueError: The file cannot be read as a config; the message says why.
    """
    path = find_config(name, key)
    remedy = 'Correct the file, or the files that it names in _base_.'
    # a config is code, so anything may be raised
    with explaining(key, 'a config that can be read', f'{os.fspath(name)!r}, which ends in {{}}', remedy):
        return Config.fromfile(path)


def _config_folder(package: str, key: str) -> Path:
    if package not in MODULE2PACKAGE:
        near = near_matches(package, sorted(MODULE2PACKAGE))
        raise file_error(f'the package of {key}', 'one that ships configs', repr(package), near)
    require_extra(package)
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        remedy = f'Install it: pip install {MODULE2PACKAGE[package]}'
        raise file_error(f'the package of {key}', 'installed', repr(package), remedy)
    return Path(spec.origin).parent / '.mim' / 'configs'


def _neighbours(path: Path, prefix: str, root: Path) -> str:
    """Near matches in the folder where ``path`` should lie, or in the nearest parent that exists."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        path, folder = folder, folder.parent
    names = sorted(
        child.name
        for child in folder.iterdir()
        if not child.name.startswith(('.', '__')) and (child.is_dir() or child.suffix in SUFFIXES)
    )
    place = f'{prefix}{os.path.relpath(folder, root)}' if prefix else str(folder.resolve())
    if not names:
        return f'There is no config in {place}.'
    return f'In {place}: {near_matches(path.name, names)}'
