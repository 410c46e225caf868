"""The distillations that the check steps: FCOS, Faster R-CNN and DINO at toy widths, the real classes."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from mmengine.registry import MODELS, DefaultScope

from benchmarks.step_model import quiet
from kd_ext.recipes import distill_entries
from tests.helpers.detector_zoo import batch, detector

# what reads a neck, a backbone and regions; a query head's regions are its queries
DETECTORS = {
    'FCOS': ('rcka', 'pkd', 'nd'),
    'Faster R-CNN': ('rcka', 'nd', 'nckd', 'lipschitz'),
    'DINO': ('rcka', 'lipschitz', 'nckd'),
}
LEARNING_RATE = 1e-3


def distillation(name: str, device: str) -> Any:
    """A :class:`DetectionDistill` of ``DETECTORS``, the same weights on every device."""
    student, teacher = _without_noise(detector(name)), _without_noise(detector(name, base=8))
    entries = distill_entries(DETECTORS[name])
    entries['rcka'].update(patch_size=2)
    settings = dict(student=student, teacher=teacher, teacher_ckpt='random', distill=entries)
    torch.manual_seed(0)
    with quiet(), DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(dict(type='kd_ext.DetectionDistill', **settings))
        model.init_weights()
    return model.to(device).train()


def _without_noise(model: Any) -> Any:
    """DINO draws the noise of its queries on the device, where other numbers come from the same seed."""
    if 'dn_cfg' in model:
        model.dn_cfg.update(label_noise_scale=1e-9, box_noise_scale=1e-9)
    return model


@functools.cache
def _images(name: str, part: int | None) -> dict[str, Any]:
    data = batch(name)
    return data if part is None else {key: value[part : part + 1] for key, value in data.items()}


def images(name: str, part: int | None = None) -> dict[str, Any]:
    """A fresh batch of two images as a loader gives it, or one of them."""
    return copy.deepcopy(_images(name, part))


def optimizer(model: Any, wrapper: type, **kwargs: Any) -> Any:
    """An optimizer wrapper on the trained parameters."""
    parameters = [one for one in model.parameters() if one.requires_grad]
    return wrapper(optimizer=torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9), **kwargs)
