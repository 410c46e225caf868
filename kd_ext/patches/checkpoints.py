"""MMEngine's checkpoints on a torch that reads only tensors and plain values by default (>= 2.6)."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint

from kd_ext.errors import expected

# torch 2.6 began to refuse by default what could run code
REFUSES = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 6)
# numpy 1.26 has a numpy._core too, which holds nothing
ARRAYS = getattr(np, 'core' if np.__version__.startswith('1.') else '_core').multiarray


def trusted_types() -> list[Any]:
    """What MMEngine's checkpoints hold besides tensors: the log history, and numpy's arrays in it.

    Returns:
        list: Classes and functions, or pairs of one and the name that files know it by.
    """
    dtypes = {type(np.dtype(kind)) for kind in 'bBhHiIlLqQefd?'}
    # Python pickles a method as getattr(class, name). The builtin would let a file reach anything, so its name is
    # bound to a stand-in.
    found = [HistoryBuffer, ARRAYS._reconstruct, ARRAYS.scalar, np.ndarray, np.dtype, *dtypes]
    found += [(_history_method, 'builtins.getattr'), (_history_method, '__builtin__.getattr')]
    if not ARRAYS.__name__.startswith('numpy.core'):  # files of numpy 1 are read under numpy 2
        found += [(getattr(ARRAYS, name), f'numpy.core.multiarray.{name}') for name in ('_reconstruct', 'scalar')]
    return found


def trust_mmengine_checkpoints() -> None:
    """Names the types of :func:`trusted_types` as safe to ``torch.load``.

    torch >= 2.6 refuses by default whatever is no tensor and no plain value, MMEngine's log history included. A
    file that holds other types is still refused. Older torch reads everything: see
    :mod:`kd_ext.engine.guarded_loading`.
    """
    if REFUSES:
        torch.serialization.add_safe_globals(trusted_types())
    # onedl-mmengine trusts a list of its own during each load, the builtin getattr included, and torch then forgets
    # ours that are also in it
    if hasattr(checkpoint, 'get_torch_safe_globals'):
        checkpoint.get_torch_safe_globals = list


def _history_method(owner: Any, name: str) -> Any:
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        found, remedy = f'{name!r} of {owner!r}', 'Do not load this file unless you know where it comes from.'
        text = expected('what a checkpoint names', 'statistics of its log history only', found, remedy)
        raise pickle.UnpicklingError(text)
    return getattr(owner, name)
