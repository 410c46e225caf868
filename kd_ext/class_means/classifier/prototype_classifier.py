"""A last classification layer made of the teacher's class means."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_ext.class_means.classifier.prototypes import classifier_rows, scaled_cosines
from kd_ext.class_means.classifier.rows import find_class_rows
from kd_ext.errors import expected, is_number, value_error
from kd_ext.losses.checks import check_count
from kd_ext.registry import MODELS


def _across(classes: Tensor, in_features: int) -> Tensor:
    """A random projection (D, in_features) to where all cosines are 0.

    The logits are the bias then, as in a new linear layer. Inputs of a new network are alike: they would all be
    taken for the class that happens to lie in their direction.
    """
    width = classes.shape[1]
    rows = nn.init.xavier_uniform_(classes.new_empty(width, in_features))
    if len(classes) < width:
        basis = torch.linalg.qr(classes.mT)[0]
        rows -= basis @ (basis.mT @ rows)
    return rows


@MODELS.register_module()
class PrototypeClassifier(nn.Module):
    """Scores by cosines to the class means: the formula of ``prototypes.py``.

    Takes the place of ``nn.Linear``, by ``cls_predictor_cfg`` of mmdet's RoI heads, or of a convolution, by
    ``kd_ext.PrototypeHead``. Where the input is not as wide as the class means, or a location has several anchors,
    a learnt linear projection to s - g comes first; where widths differ it starts such that the logits are the
    bias alone. Means, scale and projection are in the checkpoint, which alone is needed for inference.

    Initialisers of mmdet's heads reach the bias, as they should, and nothing else: the other parameters have names
    of their own.

    Args:
        in_features (int): D_in; mmdet's heads fill it in.
        out_features (int): A times C; mmdet's heads fill it in.
        class_means (str | Path | Tensor, optional): File that ``tools/class_means.py`` wrote, or rows (C or C - 1,
            D) used as they are; with C - 1 of them the last logit has a learnt row. ``None``, or a file that is
            not there, with ``width`` given: they come with the checkpoint, which is to be loaded before use.
        width (int, optional): D, where there are no means to tell.
        scale (float): gamma > 0, 1 / tau of NC1. With 80 classes in an ETF 10 lets the right one reach a
            probability of 0.997.
        learn_scale (bool): Whether gamma is learnt, from ``scale`` on.
        center (bool): Take g, the mean over classes, out first.
        background (bool): Whether the background is scored by its mean in the file as well. By default it has a
            learnt row; but all rows of a file that names no classes (the ND authors') are used.
        num_anchors (int): A. Logits are ordered as mmdet has them, anchors outside and classes inside.
        channels_first (bool): Whether inputs are maps (B, D_in, H, W).

    Attributes:
        class_means (Tensor): Raw means (C, D), zero where there is none.

    Raises:
        FileNotFoundError: No such file, and no ``width``.
        ValueError: A setting is out of its range, or class means that do not fit ``out_features`` or ``width``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        class_means: Any = None,
        width: int | None = None,
        scale: float = 10.0,
        learn_scale: bool = True,
        center: bool = True,
        background: bool = False,
        num_anchors: int = 1,
        channels_first: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = check_count('in_features', in_features)
        self.out_features = check_count('out_features', out_features)
        self.num_anchors = check_count('num_anchors', num_anchors)
        if out_features % num_anchors:
            raise value_error('out_features', f'a multiple of num_anchors, {num_anchors}', out_features)
        if not is_number(scale) or scale <= 0:
            raise value_error('scale', 'a finite number > 0', repr(scale))
        self.center, self.channels_first = bool(center), bool(channels_first)
        means, self._missing = find_class_rows(class_means, out_features // num_anchors, width, background)
        self.class_means: Tensor
        self.register_buffer('class_means', means)
        self.learnt_rows = nn.Parameter(torch.randn(means.shape))
        self.bias = nn.Parameter(torch.zeros(out_features))
        start = torch.tensor([float(scale)])
        if learn_scale:
            self.scale = nn.Parameter(start)
        else:
            self.register_buffer('scale', start)
        self._add_projection(means.shape[1])

    def _add_projection(self, width: int) -> None:
        """Its bias has -g in it, which fp16 would lose in the difference."""
        if self.num_anchors == 1 and self.in_features == width:
            self.projection = self.projection_bias = None
            return
        classes, centre = classifier_rows(self.class_means, self.learnt_rows.detach(), self.center)
        if self.in_features == width:
            rows, start = torch.eye(width), -centre[0]
        else:
            rows = _across(classes, self.in_features)
            start = torch.zeros(width)
        # by name no weight and no bias: a prior probability is not for them
        self.projection = nn.Parameter(rows.repeat(self.num_anchors, 1))
        self.projection_bias = nn.Parameter(start.repeat(self.num_anchors))

    # what code that knows convolutions asks for
    @property
    def in_channels(self) -> int:
        return self.in_features

    @property
    def out_channels(self) -> int:
        return self.out_features

    @property
    def weight(self) -> Tensor:
        """The rows in use, of length ``scale``, made anew at each call.

        (C, D), or (A * C, D, 1, 1) for maps. What is written into them has no effect, so initialisers may.
        """
        rows = self.scale * classifier_rows(self.class_means, self.learnt_rows, self.center)[0]
        if self.channels_first:
            return rows.repeat(self.num_anchors, 1)[..., None, None]
        return rows

    def forward(self, x: Tensor) -> Tensor:
        """Logits (..., C) of (..., D_in), or (B, A * C, H, W) of maps.

        Raises:
            RuntimeError: The class means were to come with a checkpoint, and none was loaded.
            ValueError: An input of another width.
        """
        self._check(x)
        if self.channels_first:
            x = x.movedim(1, -1)
        rows, centre = classifier_rows(self.class_means, self.learnt_rows, self.center)
        if self.projection is None:
            x = x - centre[0]
        else:
            x = F.linear(x, self.projection, self.projection_bias)
        x = x.unflatten(-1, (self.num_anchors, -1))
        logits = scaled_cosines(x, rows, self.scale)
        logits = logits.flatten(-2) + self.bias
        if self.channels_first:
            logits = logits.movedim(-1, 1).contiguous()
        return logits

    def _check(self, x: Tensor) -> None:
        if self._missing:
            raise RuntimeError(
                expected(
                    'class_means',
                    'known: a file, or in the loaded checkpoint',
                    self._missing,
                    'Make the file with tools/class_means.py.',
                )
            )
        axis = 1 if self.channels_first else -1
        if x.shape[axis] != self.in_features or (self.channels_first and x.dim() != 4):
            shape = '(B, {}, H, W)' if self.channels_first else '(..., {})'
            raise value_error(
                'the input',
                f'of shape {shape.format(self.in_features)}',
                tuple(x.shape),
                'channels_first tells maps from vectors.',
            )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if f'{prefix}class_means' in state_dict:
            self._missing = None

    def extra_repr(self) -> str:
        return (
            f'{self.in_features}, {self.out_features}, '
            f'width={self.class_means.shape[1]}, '
            f'num_anchors={self.num_anchors}'
        )
