"""The regions that a detector assigns to labelled images.

An image's regions depend on the model and the image alone: not on earlier images, nor on the number of processes
or data workers.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any, Iterator, Sequence

import numpy as np
import torch
from mmengine.logging import MessageHub
from torch import nn
from torch.utils.data import DataLoader, Dataset

from kd_ext.taps import run_own_loss

# TOOD uses another assigner in its first epochs
LATE_EPOCH = 10**6


class _Picked(Dataset):
    def __init__(self, data: Dataset, indices: Sequence[int]) -> None:
        self.data, self.indices = data, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, position):
        index = self.indices[position]
        return index, self.data[index]


def stream_regions(
    model: nn.Module, head: Any, data: Dataset, indices: Sequence[int], workers: int = 0, preprocess: Any = None
) -> Iterator[tuple[int, Any]]:
    """Yields each index with the :class:`Regions` of its image, in order.

    Regions are None for an image that the pipeline drops, and for one without boxes if the head has no background
    regions.

    Args:
        model: Detector in eval mode; see :func:`undisturbed`.
        head: Its head, from ``find_head``.
        data: The :class:`LabelledData`.
        indices: Images to use.
        workers: Number of data workers.
        preprocess: Replaces the model's data preprocessor.
    """
    preprocess = preprocess or model.data_preprocessor
    for index, sample in stream_samples(data, indices, workers):
        wanted = sample is not None and (head.background or len(sample['data_samples'].gt_instances))
        yield index, (own_regions(model, head, sample, index, preprocess) if wanted else None)


def stream_samples(data: Dataset, indices: Sequence[int], workers: int = 0) -> Iterator[tuple[int, Any]]:
    """Yields each index with the item of ``data`` there, in order."""
    # without a generator the loader would draw its seed from torch's global one; spawned workers would import
    # everything anew
    yield from DataLoader(
        _Picked(data, list(indices)),
        batch_size=None,
        num_workers=workers,
        collate_fn=_same,
        generator=torch.Generator(),
        multiprocessing_context='fork' if workers else None,
    )


def _same(sample: Any) -> Any:
    return sample


def own_regions(model: nn.Module, head: Any, sample: dict, seed: int, preprocess: nn.Module) -> Any:
    """The regions of one image; ``seed`` fixes what is random in them."""
    device = next(model.parameters()).device
    with _seeded(seed, device), alone(), late(), _without_history(model):
        batch = _prepared(preprocess, sample)
        return run_own_loss(model, head, batch['inputs'], batch['data_samples'])


def _prepared(preprocess: Any, sample: dict) -> dict:
    with unaugmented(preprocess):
        return preprocess({key: [value] for key, value in sample.items()}, True)


@contextlib.contextmanager
def unaugmented(preprocess: Any) -> Iterator[None]:
    """Context in which a data preprocessor pads as in training, masks too, but applies no batch augmentation.

    Batch augmentations keep state: BatchSyncRandomResize reads the iteration and reuses the size that it drew.
    """
    augments = getattr(preprocess, 'batch_augments', None)
    if augments is not None:
        preprocess.batch_augments = None
    try:
        yield
    finally:
        if augments is not None:
            preprocess.batch_augments = augments


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Context in eval mode that restores modes and buffers; some losses keep running values in buffers."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, kept in buffers:
                module._buffers[name] = buffer.copy_(kept)


@contextlib.contextmanager
def _seeded(seed, device):
    states = np.random.get_state(), random.getstate()
    devices = [device] if device.type == 'cuda' else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(states[0]), random.setstate(states[1])


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Context in which torch reports a single process.

    Losses are averaged over processes, which need not have the same number of images here.
    """
    if not torch.distributed.is_available():
        yield
        return
    asked = torch.distributed.is_initialized
    torch.distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_initialized = asked


@contextlib.contextmanager
def late() -> Iterator[None]:
    """Context in which a detector that asks for the epoch is told a late one, unless a training tells it."""
    hub = MessageHub.get_current_instance()
    known = hub.get_info('epoch') is not None
    if not known:
        hub.update_info('epoch', LATE_EPOCH)
    try:
        yield
    finally:
        if not known:
            hub.runtime_info.pop('epoch', None)


@contextlib.contextmanager
def _without_history(model):
    """Hides the history of Dynamic R-CNN, which would shift its thresholds with the images seen."""
    names = ('iou_history', 'beta_history')
    kept = [
        (module, name, getattr(module, name)) for module in model.modules() for name in names if hasattr(module, name)
    ]
    for module, name, _ in kept:
        setattr(module, name, [])
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
