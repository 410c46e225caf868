"""Reads checkpoints without running code from them, on every supported torch and from URLs too.

torch >= 2.6 refuses files that could run code, but MMEngine reads URLs through ``torch.hub``, which does not.
Older torch reads everything. ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` turns the check off.

:func:`torchvision_urls` makes names like ``torchvision://resnet18`` work without torchvision.
"""

from __future__ import annotations

import codecs
import functools
import os
import pickle
from _compat_pickle import IMPORT_MAPPING
from types import SimpleNamespace
from typing import Any, Callable
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.runner import CheckpointLoader, checkpoint

from kd_ext.errors import TRUST, expected, near_matches
from kd_ext.patches.checkpoints import REFUSES, trusted_types


def install() -> None:
    """Makes MMEngine load local files and downloads with :func:`read`, and work without torchvision."""
    checkpoint.load_url = load_url
    if not hasattr(checkpoint.get_torchvision_models, '__wrapped__'):
        checkpoint.get_torchvision_models = torchvision_urls(checkpoint.get_torchvision_models)
    # onedl-mmengine reads a refused file again without the check
    if not REFUSES or hasattr(checkpoint, '_safe_torch_load'):
        CheckpointLoader.register_scheme(
            '', lambda filename, map_location=None: read(os.path.expanduser(filename), map_location), force=True
        )


def read(path: str | os.PathLike, map_location: Any = None, mmap: bool = False) -> Any:
    """``torch.load`` of a local file that accepts only the types in MMEngine's checkpoints.

    ``mmap`` leaves the tensors on the disk, if this torch can. Raises a ``pickle.UnpicklingError`` if the file names
    another type.
    """
    if REFUSES:
        return torch.load(path, map_location, mmap=mmap)
    name, _, value = TRUST.partition('=')
    return torch.load(path, map_location, None if os.environ.get(name) == value else _checked_pickle())


def load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> Any:
    """``torch.hub.load_state_dict_from_url`` that loads with :func:`read`."""
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(path):
        torch.hub.download_url_to_file(url, path, progress=progress)
    return read(path, map_location)


def torchvision_urls(original: Callable[[], dict[str, str]]) -> Callable[[], dict[str, str]]:
    """Makes MMEngine find ``torchvision://resnet18`` if torchvision is missing or built for another torch.

    MMEngine has its own list of such names and asks torchvision only for others, such as
    ``resnet50.imagenet1k_v2``. Without torchvision only the list is used; for a name that is not in it, the
    message says what to install.
    """

    @functools.wraps(original)
    def urls() -> dict[str, str]:
        try:
            return original()
        except (ImportError, RuntimeError):  # RuntimeError: built for another torch
            return _Listed(mmengine.load(os.path.join(mmengine.__path__[0], 'hub/torchvision_0.12.json')))

    return urls


class _Listed(dict):
    def __missing__(self, name: str) -> str:
        minor = int(torch.__version__.split('.')[1])  # torchvision 0.28 is built for torch 2.13, and so on
        index = '' if torch.version.cuda else ' --index-url https://download.pytorch.org/whl/cpu'
        what, rule = f"torchvision, which knows 'torchvision://{name}',", f'installed for torch {torch.__version__}'
        remedy = f"pip install --no-deps 'torchvision==0.{minor + 15}.*'{index}. Names that need none: "
        text = expected(what, rule, 'none that can be imported', remedy + near_matches(name.partition('.')[0], self))
        raise ModuleNotFoundError(text, name='torchvision')


def _checked_pickle() -> Any:
    """A replacement for the ``pickle`` module that ``torch.load`` accepts."""
    from torch._weights_only_unpickler import _get_allowed_globals

    # bytes in pickles of protocol 2, which torch.save takes; newer torch allows it too
    allowed = {**_get_allowed_globals(), '_codecs.encode': codecs.encode}
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
