r"""Margins m of the margin ReLU max(x, m) on a teacher's features.

Shapes: B images, features (B, C, H, W) before a ReLU, margins (1, C, 1, 1).

m_c is the mean of the negative values of channel c. If a BN computes the features, they are taken as normal with
mean b (its bias) and deviation s (its weight):

.. math::
    m = E[x \mid x < 0] = b - s\,\frac{\phi(b/s)}{\Phi(-b/s)}

Source: Heo et al., A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv 1904.01866.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from kd_ext.losses.precision import upcast
from kd_ext.registry import MODELS

# a channel that is negative less often has too few values to average
RARE = 1e-3


def bn_margin(norm: Any) -> Tensor:
    """Margins (C,) from the weight and bias of a BN.

    A channel that is negative with a probability of at most 0.001 gets -3 s, as in the released code. A channel
    with weight 0 is constant and gets min(b, 0).
    """
    scale = norm.weight.detach().abs().double()
    mean = norm.bias.detach().double()
    ratio = mean / scale.clamp(min=torch.finfo(torch.float32).tiny)
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / (2 * torch.pi) ** 0.5
    margin = torch.where(below > RARE, mean - scale * density / below, -3 * scale)
    return torch.where(scale > 0, margin, mean.clamp(max=0)).float()


@MODELS.register_module()
class RunningMarginConnector(nn.Module):
    """Margin ReLU for teachers without BN (VGG16), with margins measured on the features.

    A margin is the mean of all negative values of the channel seen so far, the current batch included; it is 0 for
    a channel without any. The result is divided by the root mean square of all features seen, because without BN
    the features may have any magnitude, to which neither loss weights nor the student's BN are adapted. The
    statistics are equal on all processes and saved in checkpoints.

    Args:
        in_channel: C.
    """

    margin: Tensor
    square: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, in_channel: int) -> None:
        super().__init__()
        self.register_buffer('margin', torch.zeros(in_channel))
        self.register_buffer('square', torch.zeros(()))
        # in double: a channel soon has more than 2^24 negative values
        self.register_buffer('count', torch.zeros(in_channel).double())
        self.register_buffer('total', torch.zeros(()).double())

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Updates the statistics with the batches of all processes; each has to call it."""
        features = upcast(features.detach())
        negative = features.clamp(max=0)
        parts = (
            negative.sum((0, 2, 3)),
            (negative < 0).sum((0, 2, 3)),
            features.square().mean((2, 3)).sum(0),
            features.new_full((features.shape[1],), len(features)),
        )
        seen = torch.stack([part.double() for part in parts])
        all_reduce(seen)
        below, count, square, images = seen
        self.count += count
        self.margin += ((below - count * self.margin) / self.count.clamp(min=1)).to(self.margin)
        self.total += images.sum()
        self.square += ((square.sum() - images.sum() * self.square) / self.total.clamp(min=1)).to(self.square)

    def forward(self, features: Tensor) -> Tensor:
        """max(x, m) / rms; in training, both statistics are updated first."""
        if self.training:
            self.update(features)
        margin = self.margin.to(features)[:, None, None]
        scale = self.square.sqrt().clamp(min=1e-6).to(features)
        return torch.maximum(features.detach(), margin) / scale
