"""A classification layer whose weights are the teacher's class means."""

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
    """A random projection (D, in_features) orthogonal to all classes, so that every cosine starts at 0.

    The logits are then the bias, as in a new linear layer. A new network's inputs are all alike; any other
    projection would assign them all to whichever class lies in their direction.
    """
    width = classes.shape[1]
    rows = nn.init.xavier_uniform_(classes.new_empty(width, in_features))
    if len(classes) < width:
        basis = torch.linalg.qr(classes.mT)[0]
        rows -= basis @ (basis.mT @ rows)
    return rows


@MODELS.register_module()
class PrototypeClassifier(nn.Module):
    """Scores classes by cosines to the class means; the formula is in ``prototypes.py``.

    It replaces ``nn.Linear`` (``cls_predictor_cfg`` of mmdet's RoI heads) or a convolution
    (``kd_ext.PrototypeHead``). If the input is not as wide as the class means, or a location has several anchors,
    a learnt linear projection to s - g comes first. If the widths differ, it starts such that the logits are the
    bias alone. Means, scale and projection are saved in the checkpoint, so inference needs no class-means file.

    Of its parameters, initialisers of mmdet's heads change the bias alone: the others have names that they do not
    look for.

    Args:
        in_features: D_in; mmdet's heads fill it in.
        out_features: A times C; mmdet's heads fill it in.
        class_means: A file of ``tools/class_means.py``, or rows (C or C - 1, D) used as they are; with C - 1 rows
            the last logit has a learnt row. With None or a missing file, give ``width``: a checkpoint with the
            means has to be loaded before use.
        width: D, needed only without class means.
        scale: gamma > 0, that is 1 / tau of NC1. With 80 classes in an ETF, 10 allows the right class a
            probability of 0.997.
        learn_scale: Whether gamma is learnt, starting from ``scale``.
        center: Subtract g, the mean over classes, first.
        background: Whether the background is scored by its mean in the file. By default it has a learnt row; but a
            file without class names (the ND authors') is used whole.
        num_anchors: A. Logits are ordered as in mmdet: anchors outside, classes inside.
        channels_first: Whether inputs are maps (B, D_in, H, W).

    Attributes:
        class_means: Raw means (C, D), zero where there is none.

    Raises:
        FileNotFoundError: No such file, and no ``width``.
        ValueError: A setting is out of range, or the class means do not fit ``out_features`` or ``width``.
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
        """Adds a projection if one is needed. Its bias contains -g: subtracting g in fp16 would lose digits."""
        if self.num_anchors == 1 and self.in_features == width:
            self.projection = self.projection_bias = None
            return
        classes, centre = classifier_rows(self.class_means, self.learnt_rows.detach(), self.center)
        if self.in_features == width:
            rows, start = torch.eye(width), -centre[0]
        else:
            rows = _across(classes, self.in_features)
            start = torch.zeros(width)
        # not named weight and bias: initialisers set a prior probability in parameters of these names
        self.projection = nn.Parameter(rows.repeat(self.num_anchors, 1))
        self.projection_bias = nn.Parameter(start.repeat(self.num_anchors))

    # attributes of a convolution, which mmdet's code reads
    @property
    def in_channels(self) -> int:
        return self.in_features

    @property
    def out_channels(self) -> int:
        return self.out_features

    @property
    def weight(self) -> Tensor:
        """The rows in use, of length ``scale``: (C, D), or (A * C, D, 1, 1) for maps.

        Computed anew at each call, so initialisers may write into it without effect.
        """
        rows = self.scale * classifier_rows(self.class_means, self.learnt_rows, self.center)[0]
        if self.channels_first:
            return rows.repeat(self.num_anchors, 1)[..., None, None]
        return rows

    def forward(self, x: Tensor) -> Tensor:
        """Logits (..., C) of inputs (..., D_in), or (B, A * C, H, W) of maps (B, D_in, H, W).

        Raises:
            RuntimeError: The class means should have come with a checkpoint, but none was loaded.
            ValueError: The input has another width.
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
            rule, remedy = 'known: a file, or in the loaded checkpoint', 'Make the file with tools/class_means.py.'
            raise RuntimeError(expected('class_means', rule, self._missing, remedy))
        axis = 1 if self.channels_first else -1
        if x.shape[axis] != self.in_features or (self.channels_first and x.dim() != 4):
            shape = '(B, {}, H, W)' if self.channels_first else '(..., {})'
            rule = f'of shape {shape.format(self.in_features)}'
            raise value_error('the input', rule, tuple(x.shape), 'channels_first tells maps from vectors.')

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if f'{prefix}class_means' in state_dict:
            self._missing = None

    def extra_repr(self) -> str:
        width = self.class_means.shape[1]
        return f'{self.in_features}, {self.out_features}, width={width}, num_anchors={self.num_anchors}'
