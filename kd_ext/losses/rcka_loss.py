r"""Patch-wise centred kernel alignment of feature maps (RCKA).

Shapes: B images, C channels, (H, W) a map, p the patch size, P patches.

A map is brought to the next multiple of p on both sides (bilinear,
``align_corners=False``) and cut into p x p patches; channel c becomes
:math:`X_c` of (P, B p^2), a row for each patch position. Per level

.. math::
    L = \frac{1}{C} \sum_c w_{intra} (1 - CKA(X_c, Y_c))
                         + w_{inter} (1 - CKA(X_c^T, Y_c^T))

Source: Zhou et al., Rethinking Centered Kernel Alignment in Knowledge
Distillation, IJCAI 2024, arXiv 2401.11824. Differences to the released code
are on the page ``docs/methods/rcka.md``.
"""

from typing import Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_ext.registry import MODELS
from .checks import check_count, check_levels, check_pair, check_weight
from .cka import alignments
from .precision import full_precision

# features of at most this many values at a time: small enough for the caches
# of a CPU, large enough to keep its threads busy
CHUNK_ON_CPU = 2**20


def fitting_patch(height: int, width: int, patch_size: int,
                  center: bool) -> int:
    """The patch size used on a map: halved until enough patches fit.

    One patch has CKA = 1 with anything, and so have two after centring; a map
    needs 2 patches, 3 with ``center``. Returns 1 where no size gives enough.
    """
    needed = 3 if center else 2
    while patch_size > 1 and (-(-height // patch_size)
                              * -(-width // patch_size)) < needed:
        patch_size //= 2
    return patch_size


def patch_rows(maps: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (C, P, B p^2), one row for each patch position."""
    batch, channels, height, width = maps.shape
    down, across = -(-height // patch_size), -(-width // patch_size)
    size = (down * patch_size, across * patch_size)
    if size != (height, width):
        maps = F.interpolate(maps, size, mode='bilinear', align_corners=False)
    maps = maps.reshape(batch, channels, down, patch_size, across, patch_size)
    return maps.permute(1, 2, 4, 0, 3, 5).reshape(channels, down * across, -1)


def _sum_over_channels(preds_S, preds_T, patch_size, intra_weight,
                       inter_weight, center):
    """Sum over channels of one level's loss: a scalar."""
    intra, inter = alignments(
        patch_rows(preds_S, patch_size), patch_rows(preds_T, patch_size),
        rows=intra_weight > 0, columns=inter_weight > 0, center=center)
    total = preds_S.new_zeros(())
    if intra is not None:
        total = total + intra_weight * (1 - intra).sum()
    if inter is not None:
        total = total + inter_weight * (1 - inter).sum()
    return total


class _ByChannels(torch.autograd.Function):
    """Value and gradient together, a few channels at a time.

    Channels are independent, so the resized and patched copies of a few of
    them are made, used for value and gradient while they are in the cache,
    and dropped; what stays for the backward is the gradient alone.
    """

    @staticmethod
    def forward(ctx, preds_S, preds_T, step, args):
        total = preds_S.new_zeros(())
        grads = torch.empty_like(preds_S)
        for start in range(0, preds_S.shape[1], step):
            part = slice(start, start + step)
            student = preds_S[:, part].detach().requires_grad_()
            with torch.enable_grad():
                value = _sum_over_channels(student, preds_T[:, part], *args)
            grads[:, part], = torch.autograd.grad(value, student)
            total += value.detach()
        ctx.save_for_backward(grads)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grads, = ctx.saved_tensors
        return grads * grad, None, None, None


@full_precision
def rcka_loss(preds_S: Tensor, preds_T: Tensor, patch_size: int = 16,
              intra_weight: float = 1.0, inter_weight: float = 0.0,
              center: bool = True) -> Tensor:
    """RCKA of one level; see the module's formula.

    Args:
        preds_S: Student maps (B, C, H, W); the gradient goes here only.
        preds_T: Teacher maps (B, C, H, W), detached.
        patch_size: Side of a patch in cells; :func:`fitting_patch` halves it
            on maps with too few patches.
        intra_weight: Weight of the alignment between patches.
        inter_weight: Weight of the alignment between cells.
        center: Centre what is compared first; ``False`` as in the released
            code.

    Returns:
        Scalar >= 0, mean over channels; 0 where preds_S = a * preds_T, a > 0.
        Channels without any signal in either map count as not aligned and
        have no gradient.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 4-D, not floating point, or of different shapes.

    Example:
        >>> import torch
        >>> maps = torch.rand(2, 4, 32, 48)
        >>> float(rcka_loss(maps, 3 * maps)) < 1e-5
        True
        >>> float(rcka_loss(maps, torch.rand(2, 4, 32, 48))) > 0.01
        True
    """
    check_pair(preds_S, preds_T, (4,), '(B, C, H, W)')
    if preds_S.numel() == 0 or intra_weight == inter_weight == 0:
        return preds_S.sum() * 0
    preds_T = preds_T.detach()
    batch, channels, height, width = preds_S.shape
    patch = fitting_patch(height, width, patch_size, center)
    args = (patch, intra_weight, inter_weight, center)
    if not (preds_S.requires_grad and torch.is_grad_enabled()):
        return _sum_over_channels(preds_S, preds_T, *args) / channels
    step = channels
    if preds_S.device.type == 'cpu':
        step = max(1, CHUNK_ON_CPU // (batch * height * width))
    return _ByChannels.apply(preds_S, preds_T, step, args) / channels


@MODELS.register_module()
class RCKALoss(nn.Module):
    """RCKA summed over levels, :func:`rcka_loss` each.

    Args:
        patch_size (int): Side of a patch in cells. Default 16.
        intra_weight (float): Weight of the alignment between patches.
        inter_weight (float): Weight of the alignment between cells.
        center (bool): Centre before comparing. The published weights belong
            to ``center=False``.
        loss_weight (float): Factor on the whole.

    Raises:
        ValueError: A weight is negative or no number, both weights are 0, or
            the patch size is no whole number >= 1.
    """

    def __init__(self, patch_size: int = 16, intra_weight: float = 1.0,
                 inter_weight: float = 0.0, center: bool = True,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        self.patch_size = check_count('patch_size', patch_size)
        self.intra_weight = check_weight('intra_weight', intra_weight)
        self.inter_weight = check_weight('inter_weight', inter_weight)
        self.center = bool(center)
        self.loss_weight = check_weight('loss_weight', loss_weight)

    def forward(self, preds_S: Union[Tensor, Sequence[Tensor]],
                preds_T: Union[Tensor, Sequence[Tensor]]) -> Tensor:
        """Sums :func:`rcka_loss` over levels; a tensor is one level."""
        levels_S, levels_T = _as_levels(preds_S), _as_levels(preds_T)
        check_levels(levels_S, levels_T)
        return self.loss_weight * sum(
            rcka_loss(student, teacher, self.patch_size, self.intra_weight,
                      self.inter_weight, self.center)
            for student, teacher in zip(levels_S, levels_T))


def _as_levels(preds) -> Tuple[Tensor, ...]:
    return (preds,) if isinstance(preds, Tensor) else tuple(preds)
