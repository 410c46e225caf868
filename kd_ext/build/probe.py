"""Runs a model once on a blank image, to see its shapes."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

import torch
from torch import Tensor, nn

from kd_ext.build.modules import naming

PROBE_SIZE = 320  # the smallest common input of the detectors in mmdet


@contextlib.contextmanager
def probing(model: nn.Module) -> Iterator[Tensor]:
    """Context in eval mode, without gradients; gives a blank image. Raises a ``ValueError`` if the model fails."""
    modes = {module: module.training for module in model.modules()}
    image = next(model.parameters()).new_zeros(1, 3, PROBE_SIZE, PROBE_SIZE)
    model.eval()
    try:
        rule, remedy = 'of parts that fit one another and take an image', 'It has to train without distillation, too.'
        with torch.no_grad(), naming(f'a {type(model).__name__}', rule, [image], remedy):
            yield image
    finally:
        for module, mode in modes.items():
            module.training = mode


def blank_samples(model: nn.Module, inputs: Tensor) -> list:
    """Data samples without annotations for images (B, 3, H, W), of the type that a detector or segmentor takes."""
    shape = tuple(inputs.shape[-2:])
    meta: dict[str, Any] = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), shape)
    meta['scale_factor'] = (1.0, 1.0)
    if is_segmentor(model):
        from mmseg.structures import SegDataSample as Sample

        meta['padding_size'] = [0, 0, 0, 0]
    else:
        from mmdet.structures import DetDataSample as Sample
    return [Sample(metainfo=dict(meta, img_id=index)) for index in range(len(inputs))]


def is_segmentor(model: nn.Module) -> bool:
    """Whether a model's class derives from mmseg; mmseg need not be installed."""
    return any(cls.__module__.partition('.')[0] == 'mmseg' for cls in type(model).__mro__)
