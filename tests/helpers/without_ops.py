"""mmcv with and without its compiled operators."""

import importlib
import os
from pathlib import Path

import pytest


def compiled():
    """``mmcv._ext`` as mmcv compiled it; skips the test where it did not."""
    ops = importlib.import_module('mmcv._ext')
    if getattr(ops, '__file__', None) is None:
        pytest.skip(
            'compares with compiled operators, and this mmcv has none: KD_EXT_OPS=compiled bash tools/setup.sh'
        )
    return ops


def hide_ops(folder):
    """An environment for processes whose mmcv has no ``_ext``: links to all the rest of it, found first."""
    import mmcv

    (folder / 'mmcv').mkdir(parents=True)
    for path in Path(mmcv.__file__).parent.iterdir():
        if not path.name.startswith('_ext'):
            (folder / 'mmcv' / path.name).symlink_to(path)
    return {**os.environ, 'PYTHONPATH': os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')])}
