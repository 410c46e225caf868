r"""Patch-wise centred kernel alignment of feature maps (RCKA).

Shapes: B images, C channels, (H, W) a map, p the patch size, P patches.

A map is brought to the next multiple of p on both sides (bilinear, ``align_corners=False``) and cut into p x p
patches; channel c becomes :math:`X_c` of (P, B p^2), a row for each patch position. Per level

.. math::
    L = \frac{1}{C} \sum_c w_{intra} (1 - CKA(X_c, Y_c))
                         + w_{inter} (1 - CKA(X_c^T, Y_c^T))

Where patches outnumber the cells of a row, X^T takes the place of X and the terms change places: the products
never grow with the square of the image.

Source: Zhou et al., Rethinking Centered Kernel Alignment in Knowledge Distillation, IJCAI 2024, arXiv 2401.11824.
Differences to the released code are on the page ``docs/methods/rcka.md``.
"""

from __future__ import annotations

from functools import partial
from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_ext.losses.checks import as_levels, check_count, check_flag, check_pair, check_some_weight, check_weight
from kd_ext.losses.cka import AlignmentLoss, Task
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS

# features of at most this many values at a time: small enough for the caches of a CPU, large enough to keep its
# threads busy
CHUNK_ON_CPU = 2**20
# patches for each cell from which the products of X^T are the smaller ones: the intra term takes 5 of them against
# 3 of X
MANY_PATCHES = 5 / 3


def fitting_patch(height: int, width: int, patch_size: int, center: bool) -> int:
    """The patch size used on a map: halved until enough patches fit.

    One patch has CKA = 1 with anything, and so have two after centring; a map needs 2 patches, 3 with ``center``.
    Returns 1 where no size gives enough.
    """
    needed = 3 if center else 2
    while patch_size > 1 and (-(-height // patch_size) * -(-width // patch_size)) < needed:
        patch_size //= 2
    return patch_size


def _resize_rows(maps: Tensor, length: int) -> Tensor:
    """(N, L, Q) -> (N, length, Q), linear along L.

    Read as a channels-last map of Q channels and one column, for which torch has a vectorised kernel both ways: a
    few times faster than the bilinear resize of (N, 1, L, Q), with the same weights.
    """
    if maps.shape[1] == length:
        return maps
    column = maps[:, :, None].permute(0, 3, 1, 2)
    column = F.interpolate(column, (length, 1), mode='bilinear', align_corners=False)
    return column.permute(0, 2, 3, 1).squeeze(2)


def patch_rows(maps: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (C, P, B p^2), one row for each patch position.

    The bilinear resize is one linear resize down and one across. The cells of a patch are in the order (across,
    image, down), the one that the resize across leaves; no alignment depends on it.
    """
    _, channels, height, width = maps.shape
    down, across = -(-height // patch_size), -(-width // patch_size)
    # image by image, so that a slice of channels need not be copied first
    strips = torch.stack(
        [
            _resize_rows(image, down * patch_size).view(channels, down, patch_size, width).transpose(2, 3)
            for image in maps.unbind()
        ],
        3,
    )
    cells = _resize_rows(strips.view(channels * down, width, -1), across * patch_size)
    return cells.reshape(channels, down * across, -1)


def _patch_columns(maps: Tensor, patch_size: int) -> Tensor:
    return patch_rows(maps, patch_size).mT


@full_precision
def rcka_loss(
    preds_S: Tensor,
    preds_T: Tensor,
    patch_size: int = 16,
    intra_weight: float = 1.0,
    inter_weight: float = 0.0,
    center: bool = True,
) -> Tensor:
    """RCKA of one level; see the module's formula.

    Args:
        preds_S: Student maps (B, C, H, W); only they get a gradient.
        preds_T: Teacher maps (B, C, H, W).
        patch_size: Side of a patch in cells; :func:`fitting_patch` halves it on maps with too few patches.
        intra_weight: Weight of the alignment between patches.
        inter_weight: Weight of the alignment between cells.
        center: Centre what is compared first; ``False`` as in the released code.

    Returns:
        Scalar >= 0 up to rounding errors, mean over channels; 0 where preds_S = a * preds_T, a > 0. Channels without
        any signal in either map count as not aligned and have no gradient.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 4-D, not floating point, or of different shapes.

    Example:
        >>> import torch
        >>> maps = torch.rand(2, 4, 32, 48)
        >>> float(rcka_loss(maps, 3 * maps)) < 1e-5
        True
        >>> float(rcka_loss(maps, torch.rand(2, 4, 32, 48))) > 0.001
        True
    """
    check_pair(preds_S, preds_T, (4,), '(B, C, H, W)')
    if preds_S.numel() == 0 or intra_weight == inter_weight == 0:
        return preds_S.sum() * 0
    batch, channels, height, width = preds_S.shape
    patch = fitting_patch(height, width, patch_size, center)
    rows, task = patch_rows, Task(intra_weight, inter_weight, center)
    if -(-height // patch) * -(-width // patch) > MANY_PATCHES * batch * patch**2:
        rows, task = _patch_columns, Task(inter_weight, intra_weight, center)
    step = channels
    if preds_S.device.type == 'cpu':
        step = max(1, CHUNK_ON_CPU // (batch * height * width))
    return AlignmentLoss.apply(preds_S, preds_T.detach(), partial(rows, patch_size=patch), step, task) / channels


@MODELS.register_module()
class RCKALoss(nn.Module):
    """:func:`rcka_loss` summed over levels, times ``loss_weight``; the other arguments are those of the function.

    It relates the images of a process: on several it is the mean of theirs. The published weights belong to
    ``center=False``.

    Raises:
        ValueError: A weight is negative or no number, both weights are 0, ``center`` is neither True nor False, or
            the patch size is no whole number >= 1.
    """

    def __init__(
        self,
        patch_size: int = 16,
        intra_weight: float = 1.0,
        inter_weight: float = 0.0,
        center: bool = True,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.patch_size = check_count('patch_size', patch_size)
        self.intra_weight = check_weight('intra_weight', intra_weight)
        self.inter_weight = check_weight('inter_weight', inter_weight)
        check_some_weight(intra_weight=intra_weight, inter_weight=inter_weight)
        self.center = check_flag('center', center)
        self.loss_weight = check_weight('loss_weight', loss_weight)

    def note(self, shape: Sequence[int]) -> str:
        """The patch size on a map (B, C, H, W)."""
        patch = fitting_patch(shape[2], shape[3], self.patch_size, self.center)
        return f'patch {patch}' if patch == self.patch_size else f'patch {patch} for {self.patch_size}'

    def forward(self, preds_S: Tensor | Sequence[Tensor], preds_T: Tensor | Sequence[Tensor]) -> Tensor:
        """Sums :func:`rcka_loss` over levels; a tensor is one level."""
        first, *others = (
            rcka_loss(student, teacher, self.patch_size, self.intra_weight, self.inter_weight, self.center)
            for student, teacher in zip(*as_levels(preds_S, preds_T))
        )
        return self.loss_weight * sum(others, first)
