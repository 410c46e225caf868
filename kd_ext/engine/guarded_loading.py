"""Checkpoints are read without running code from them, on every supported torch and from URLs as well.

torch >= 2.6 refuses by default a file that could run code, but MMEngine reads URLs through ``torch.hub``, which
asks for no such check. Older torch reads everything. ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` turns the check off.
"""

from __future__ import annotations

import os
import pickle
from _compat_pickle import IMPORT_MAPPING
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.runner import CheckpointLoader, checkpoint

from kd_ext.errors import TRUST
from kd_ext.patches.checkpoints import REFUSES, trusted_types


def install() -> None:
    """Has MMEngine read local files and downloads by :func:`read`."""
    checkpoint.load_url = load_url
    if not REFUSES:
        CheckpointLoader.register_scheme('', _load_from_local, force=True)


def read(path: str | os.PathLike, map_location: Any = None, mmap: bool = False) -> Any:
    """``torch.load`` that lets a file name only what checkpoints of MMEngine hold.

    Args:
        path: A local file.
        map_location: As in ``torch.load``.
        mmap: Leave the tensors on the disk, where this torch can.

    Raises:
        pickle.UnpicklingError: The file names something else.
    """
    if REFUSES:
        return torch.load(path, map_location, mmap=mmap)
    name, _, value = TRUST.partition('=')
    return torch.load(path, map_location, None if os.environ.get(name) == value else _checked_pickle())


def load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> Any:
    """``torch.hub.load_state_dict_from_url`` by way of :func:`read`."""
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(path):
        torch.hub.download_url_to_file(url, path, progress=progress)
    return read(path, map_location)


def _load_from_local(filename: str, map_location: Any = None) -> Any:
    return read(os.path.expanduser(filename), map_location)


def _checked_pickle() -> Any:
    """A stand-in for the module ``pickle`` that ``torch.load`` takes."""
    from torch._weights_only_unpickler import _get_allowed_globals

    allowed = dict(_get_allowed_globals())
    for entry in trusted_types():
        found, name = entry if isinstance(entry, tuple) else (entry, f'{entry.__module__}.{entry.__qualname__}')
        allowed[name] = found

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            for place in (module, IMPORT_MAPPING.get(module, module)):  # files may use the names of Python 2
                if f'{place}.{name}' in allowed:
                    return allowed[f'{place}.{name}']
            raise pickle.UnpicklingError(f'GLOBAL {module}.{name} could run code')

    return SimpleNamespace(
        __name__='checked_pickle', Unpickler=Unpickler, load=lambda file, **kwargs: Unpickler(file, **kwargs).load()
    )
