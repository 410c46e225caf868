"""Maps a student feature to the teacher's width and size."""

from __future__ import annotations

from typing import Any, Sequence

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from kd_ext.build.modules import build_module
from kd_ext.errors import value_error
from kd_ext.registry import MODELS


@MODELS.register_module()
class Connector(nn.Module):
    """A 1x1 projector if widths differ, then a bilinear resize if sizes do.

    Widths are known when the model is built; sizes change from batch to batch. If nothing differs, the feature
    passes through unchanged.
    """

    def __init__(self, projector: nn.Module | None = None) -> None:
        super().__init__()
        self.projector = projector

    @classmethod
    def between(
        cls, student: Sequence[int], teacher: Sequence[int], projector: Any = None, place: str = 'connector'
    ) -> Connector:
        """The connector between two shapes (B, C, H, W), (N, D) or (B, N, D).

        Args:
            student, teacher: The shapes.
            projector: Config of a projector, used for any widths instead of the automatic 1x1 convolution or
                linear layer. It gets ``in_channel`` and ``out_channel``, as mmrazor's connectors do.
            place: The config's place, for messages.

        Raises:
            ValueError: The shapes have different numbers of axes, or the projector cannot be built.
        """
        if len(student) != len(teacher) or len(student) not in (2, 3, 4):
            found, rule = f'{tuple(student)} and {tuple(teacher)}', 'of 2, 3 or 4 axes, as many in student and teacher'
            raise value_error('a tapped feature', rule, found)
        axis = 1 if len(student) == 4 else -1
        widths = student[axis], teacher[axis]
        if projector is not None:
            return cls(build_module(place, projector, in_channel=widths[0], out_channel=widths[1]))
        if widths[0] == widths[1]:
            return cls()
        return cls(nn.Conv2d(*widths, 1) if len(student) == 4 else nn.Linear(*widths))

    def describe(self, student: Sequence[int], teacher: Sequence[int]) -> tuple[str, int]:
        """The connector between two shapes in words, and its number of parameters."""
        words = [] if self.projector is None else [type(self.projector).__name__]
        if len(student) == 4 and student[2:] != teacher[2:]:
            words.append('resized')
        return ', '.join(words), sum(p.numel() for p in self.parameters())

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Projects and resizes the student's feature to the teacher's shape, as far as needed."""
        if self.projector is not None:
            student = self.projector(student)
        if student.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
            student = F.interpolate(student, teacher.shape[2:], mode='bilinear', align_corners=False)
        return student


@MODELS.register_module()
class ConvBNConnector(nn.Sequential):
    """A 1x1 convolution and a norm, without activation.

    Args:
        in_channel: Width of the student's map.
        out_channel: Width of the teacher's.
        norm_cfg: Config of the norm. The default, BN, uses each process's own images unless the Runner's
            ``sync_bn`` is set.
    """

    def __init__(self, in_channel: int, out_channel: int, norm_cfg: dict[str, Any] | None = None) -> None:
        conv = nn.Conv2d(in_channel, out_channel, 1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode='fan_out')
        _, norm = build_norm_layer(norm_cfg or dict(type='BN'), out_channel)
        super().__init__(conv, norm)
