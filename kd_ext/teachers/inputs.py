"""Converts the student's batch to the teacher's normalisation."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn


class InputAdapter:
    """Converts the student's batch to the teacher's normalisation.

    With ``x_S = (x - m_S) / s_S`` for the student and ``x_T = (x - m_T) / s_T`` for the teacher, this is one
    affine map per channel, after a flip if the channel orders differ. Padding, which both add after normalising,
    gets the teacher's pad value. Sizes are the student's: its batch augmentations (``BatchSyncRandomResize``) and
    its padding apply to both. If nothing differs, the batch is passed on unchanged.

    Args:
        student, teacher: Their data preprocessors are read once.

    Attributes:
        same: Whether nothing differs.
    """

    def __init__(self, student: BaseModel, teacher: BaseModel) -> None:
        source, target = student.data_preprocessor, teacher.data_preprocessor
        self.flip = _flips(source) != _flips(target)
        mean_s, std_s = _statistics(source)
        mean_t, std_t = _statistics(target)
        if self.flip:
            mean_s, std_s = mean_s.flip(0), std_s.flip(0)
        self.scale = std_s / std_t
        self.shift = (mean_s - mean_t) / std_t
        self.pad_value = _pad_value(target)
        self.same = (
            not self.flip
            and bool(torch.allclose(self.scale, torch.ones(()), atol=1e-6))
            and bool(torch.allclose(self.shift, torch.zeros(()), atol=1e-6))
            and self.pad_value == _pad_value(source)
        )

    def __call__(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """Converts images (B, 3, H, W), which stay unchanged themselves.

        ``img_shape`` of the data samples tells where the padding of each image begins.
        """
        if self.same:
            return inputs
        if self.flip:
            inputs = inputs.flip(1)
        # addcmul keeps this one pass over the images
        shape = (1, -1, 1, 1)
        shift = self.shift.to(inputs).view(shape)
        outputs = torch.addcmul(shift, inputs, self.scale.to(inputs).view(shape))
        for image, sample in zip(outputs, data_samples or ()):
            size = sample.metainfo.get('img_shape')
            if size is not None:
                image[:, size[0] :] = self.pad_value
                image[:, :, size[1] :] = self.pad_value
        return outputs


def _flips(preprocessor: nn.Module) -> bool:  # mmdet's name, mmseg's name
    return any(getattr(preprocessor, name, False) for name in ('_channel_conversion', 'channel_conversion'))


def _pad_value(preprocessor: nn.Module) -> float:
    return float(getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0)))


def _statistics(preprocessor: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the three channels: (3,) each."""
    if not getattr(preprocessor, '_enable_normalize', False):
        return torch.zeros(3), torch.ones(3)
    mean, std = (getattr(preprocessor, name).flatten().cpu().float() for name in ('mean', 'std'))
    return mean.expand(3).clone(), std.expand(3).clone()
