"""Which file a config name means, and whether a config distills."""

import importlib.util
import os
from pathlib import Path

from mmengine.config.utils import MODULE2PACKAGE

from kd_ext.build.extras import require_extra
from kd_ext.errors import file_error, near_matches

ALGORITHM = 'DetectionDistill'
SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def distills(cfg):
    """Whether a config is for :class:`DetectionDistill`."""
    kind = cfg.model.get('type')
    return getattr(kind, '__name__', str(kind)).endswith(ALGORITHM)


def find_config(name, key='config'):
    """The file behind a path or a ``pkg::name``, which messages call ``key``.

    MMEngine's ``get_config`` is of no use here: it calls pip for a package that is not installed.
    """
    package, colons, relative = name.rpartition('::')
    root = _config_folder(package) if colons else Path()
    path = root / Path(relative).expanduser()
    if path.is_file() and path.suffix in SUFFIXES:
        return path
    raise file_error(
        key, f'an existing file ({", ".join(SUFFIXES)})', repr(name), _neighbours(path, package + colons, root)
    )


def _config_folder(package):
    if package not in MODULE2PACKAGE:
        raise file_error(
            'the package of a config',
            'one that ships configs',
            repr(package),
            near_matches(package, sorted(MODULE2PACKAGE)),
        )
    require_extra(package)
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise file_error(
            'the package of a config', 'installed', repr(package), f'Install it: pip install {MODULE2PACKAGE[package]}'
        )
    return Path(spec.origin).parent / '.mim' / 'configs'


def _neighbours(path, prefix, root):
    """Near matches among what lies where ``path`` should lie."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        path, folder = folder, folder.parent
    names = sorted(
        child.name
        for child in folder.iterdir()
        if not child.name.startswith(('.', '__')) and (child.is_dir() or child.suffix in SUFFIXES)
    )
    place = f'{prefix}{os.path.relpath(folder, root)}' if prefix else str(folder)
    if not names:
        return f'There is no config in {place}.'
    return f'In {place}: {near_matches(path.name, names)}'
