r"""Kullback-Leibler divergence of the class scores of a dense head, at all its locations.

Shapes: levels of B images, A anchors times K classes in C = A K channels, H x W cells.

.. math::
    L = \frac{T^2}{\sum_x w_x} \sum_x w_x \sum_c KL\big(\sigma(t_{xc} / T) \,\|\, \sigma(s_{xc} / T)\big),\quad
    w_x = \max_c \sigma(t_{xc})

x runs over the cells of all levels and images. A cell counts as much as the teacher is sure of an object there, so
the many empty cells do not drown the rest, and nothing depends on labels: :class:`kd_ext.losses.LogitKLLoss` at
``'logits'`` reads only the cells that the student's head assigns to a labelled object.

Source: the binary form of Hinton et al., arXiv 1503.02531; the weight by the teacher's confidence is ours.
"""

from __future__ import annotations

from typing import Sequence

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from kd_ext.losses.checks import check_pair, check_temperature, check_weight
from kd_ext.losses.kl_loss import binary_divergences
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS

EPS = 1e-6


@full_precision
def location_kl_loss(
    preds_S: Sequence[Tensor], preds_T: Sequence[Tensor], tau: float = 1.0, avg_factor: float | Tensor | None = None
) -> Tensor:
    """KL of sigmoid scores over all locations; see the module's formula.

    Args:
        preds_S: Student logits, one (B, C, H, W) per level; only they get a gradient.
        preds_T: Teacher logits of the same shapes.
        tau: Temperature T > 0. T^2 keeps the size of the gradient.
        avg_factor: Divisor in place of the sum of the weights, e.g. its mean over processes.

    Returns:
        Scalar >= 0 up to rounding errors; 0 where both give the same scores.

    Raises:
        TypeError: Not tensors.
        ValueError: A level is not 4-D, not floating point, or of different shapes.

    Example:
        >>> import torch
        >>> logits = [torch.randn(2, 20, 8, 8), torch.randn(2, 20, 4, 4)]
        >>> float(location_kl_loss(logits, logits))
        0.0
    """
    total: Tensor | float = 0.0
    sure: Tensor | float = 0.0
    for student, teacher in zip(preds_S, preds_T):
        check_pair(student, teacher, (4,), '(B, C, H, W)')
        weights = confidence(teacher)
        divergence = binary_divergences(student / tau, teacher.detach() / tau).sum(1)
        total, sure = total + (divergence * weights).sum(), sure + weights.sum()
    avg_factor = sure if avg_factor is None else avg_factor
    return torch.as_tensor(total) * tau**2 / torch.as_tensor(avg_factor).clamp(min=EPS)


def confidence(logits: Tensor) -> Tensor:
    """The highest score at each location: (B, C, H, W) to (B, H, W), without gradient."""
    return logits.detach().amax(1).sigmoid()


@MODELS.register_module()
class LocationKLLoss(nn.Module):
    """:func:`location_kl_loss` times a weight.

    It goes to the classification layer of a dense head that scores classes by sigmoids, for example
    ``at='bbox_head.conv_cls'`` for FCOS and ``at='bbox_head.retina_cls'`` for RetinaNet. Student and teacher need
    the same classes and anchors there.

    Args:
        tau: Temperature.
        loss_weight: Factor on the whole.

    Raises:
        ValueError: ``tau`` is not positive, or the weight is negative.
    """

    relates_levels = True
    # logits have a meaning: a projector between them would lose it
    fits_widths = True

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tau = check_temperature(tau)
        self.loss_weight = check_weight('loss_weight', loss_weight)

    def forward(self, preds_S: Sequence[Tensor], preds_T: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`location_kl_loss`.

        On several processes the divisor is the mean over them, so that the mean of losses and gradients is that of
        one process with all images.
        """
        avg_factor = None
        if get_world_size() > 1:
            avg_factor = torch.stack([confidence(teacher.float()).sum() for teacher in preds_T]).sum()
            all_reduce(avg_factor, 'mean')
        return self.loss_weight * location_kl_loss(preds_S, preds_T, self.tau, avg_factor)
