r"""Centred kernel alignment of whole features over a batch (FCKA), for maps of any widths and sizes.

Shapes: B images; row i of X (B, C H W) is the flattened feature of image i, of Y (B, C' H' W') the teacher's.

.. math::
    L = 1 - CKA(X, Y)

compares the B x B Gram matrices, that is, how alike the images of a batch are to each model. It needs B >= 2 images
on a process, B >= 3 with ``center``, to have anything to compare.

Source: Zhou et al., IJCAI 2024, arXiv 2401.11824, its form for classification.
"""

from __future__ import annotations

from typing import Sequence

from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.losses.checks import as_levels, check_flag, check_tensor, check_weight
from kd_ext.losses.cka import AlignmentLoss, Task
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS


def image_rows(features: Tensor) -> Tensor:
    """(B, ...) -> (1, B, D), one row for each image."""
    return features.flatten(1)[None]


@full_precision
def feature_cka_loss(preds_S: Tensor, preds_T: Tensor, center: bool = True) -> Tensor:
    """FCKA of one level; see the module's formula.

    Args:
        preds_S: Student features (B, C, H, W) or (B, D); only they get a gradient.
        preds_T: Teacher features of the same B images, of any width and size.
        center: Centre over the images first.

    Returns:
        Scalar >= 0 up to rounding errors; 0 where the features of one model are a scaled rotation of the other's.
        1 without a gradient where nothing is compared (one image). Without values, a zero that is in the graph.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 2-D or 4-D, not floating point, or batches of different sizes.

    Example:
        >>> import torch
        >>> maps = torch.rand(4, 8, 6, 6)
        >>> float(feature_cka_loss(maps, maps.repeat(1, 2, 1, 1))) < 1e-5
        True
    """
    for name, preds in (('preds_S', preds_S), ('preds_T', preds_T)):
        check_tensor(name, preds, (2, 4), '(B, C, H, W) or (B, D)')
    if len(preds_S) != len(preds_T):
        raise value_error('preds_S and preds_T', 'of one batch size', f'{len(preds_S)} and {len(preds_T)}')
    if not preds_S.numel() or not preds_T.numel():
        return preds_S.sum() * 0
    step = max(preds_S.shape[1], preds_T.shape[1])
    return AlignmentLoss.apply(preds_S, preds_T.detach(), image_rows, step, Task(rows=1.0, columns=0.0, center=center))


@MODELS.register_module()
class FeatureCKALoss(nn.Module):
    """:func:`feature_cka_loss` summed over levels, times ``loss_weight``.

    It relates the images of a process: on several it is the mean of theirs. ``kd_ext.DetectionDistill`` adds no
    projectors.

    Raises:
        ValueError: The weight is negative or no number, or ``center`` is neither True nor False.
    """

    fits_widths = True

    def __init__(self, center: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.center = check_flag('center', center)
        self.loss_weight = check_weight('loss_weight', loss_weight)

    def forward(self, preds_S: Tensor | Sequence[Tensor], preds_T: Tensor | Sequence[Tensor]) -> Tensor:
        """Sums :func:`feature_cka_loss` over levels; a tensor is one level."""
        first, *others = (feature_cka_loss(*pair, self.center) for pair in zip(*as_levels(preds_S, preds_T)))
        return self.loss_weight * sum(others, first)
