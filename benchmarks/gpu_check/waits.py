"""Where a step makes the host wait for the device, counted by who asks.

On a GPU torch's sync debug mode tells. On a CPU nothing waits, so the calls that would are counted: those that give
the host a value, those whose result has a size that depends on values, and tensors made from Python numbers, which
are copied. The code takes the ways of a GPU then, see ``kd_ext.losses.waiting``.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kd_ext  # noqa: F401
from benchmarks.gpu_check.models import DETECTORS, distillation, images, optimizer
from benchmarks.gpu_check.parts import Row, Setting, part
from kd_ext.losses import waiting

WAITING = {
    'aten::_linalg_det',
    'aten::_linalg_eigh',
    'aten::_linalg_svd',
    'aten::_local_scalar_dense',
    'aten::_unique2',
    'aten::bincount',
    'aten::equal',
    'aten::lift_fresh',
    'aten::masked_select',
    'aten::nonzero',
    'aten::unique_consecutive',
    'aten::unique_dim',
}
INDEXING = {'aten::index', 'aten::index_put', 'aten::index_put_'}
# how many regions there are, which sizes all that follows, as mmdet's own loss asks it; DINO's teacher has its own
ALLOWED = {'FCOS': 1, 'Faster R-CNN': 0, 'DINO': 2}


class CountWaits(TorchDispatchMode):
    """Counts by place the calls that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name
        if name in WAITING or (name in INDEXING and any(_is_mask(index) for index in args[1])):
            self.places[asking(sys._getframe(1))] += 1
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def asking(frame: Any) -> str:
    """``package/file.py:line`` of the innermost frame outside torch and this file."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if 'torch' not in path.parts and path.name not in ('warnings.py', 'waits.py') and path.is_absolute():
            parts = path.parts
            roots = [index for index, name in enumerate(parts) if name in ('kd_ext', 'mmdet', 'mmengine', 'mmcv')]
            return f'{"/".join(parts[roots[-1] :] if roots else parts[-2:])}:{frame.f_lineno}'
        frame = frame.f_back
    return 'torch'


@contextlib.contextmanager
def counted(device: str) -> Iterator[Counter]:
    """Waits of the block, by place."""
    if device != 'cuda':
        prompt = set(waiting.PROMPT)
        waiting.PROMPT.clear()
        try:
            with CountWaits() as mode:
                yield mode.places
        finally:
            waiting.PROMPT.update(prompt)
        return
    places: Counter[str] = Counter()

    def note(message: Any, *rest: Any, **more: Any) -> None:
        if 'synchroniz' in str(message):
            places[asking(sys._getframe(1))] += 1

    with warnings.catch_warnings():
        warnings.simplefilter('always')
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode('default')


def of_step(name: str, device: str) -> Counter:
    """Waits of the third step: forward and backward pass, without the optimizer and MMEngine's log."""
    model = distillation(name, device)
    wrapper = optimizer(model, OptimWrapper)
    for step in range(3):
        torch.manual_seed(step)
        data = model.data_preprocessor(images(name), True)
        with counted(device) if step == 2 else contextlib.nullcontext(Counter()) as places:
            losses = model(**data, mode='loss')
            total, _ = model.parse_losses(losses)
            total.backward()
        if step < 2:
            wrapper.step()
            wrapper.zero_grad()
    return places


@part
def waits(setting: Setting) -> list[Row]:
    rows = []
    for name in DETECTORS:
        places = of_step(name, setting.device)
        # the ops of kd_ext.ops stand in for mmcv's
        own = {
            place: count
            for place, count in places.items()
            if place.startswith('kd_ext/') and not place.startswith('kd_ext/ops/')
        }
        note = ', '.join(f'{place} {count} times' for place, count in sorted(own.items()))
        rows.append(Row(f'{name}: waits of kd_ext in a step', float(sum(own.values())), float(ALLOWED[name]), note))
        rows.append(Row(f'{name}: waits of others in a step', float(sum(places.values()) - sum(own.values()))))
    return rows
