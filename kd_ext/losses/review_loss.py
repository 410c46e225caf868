r"""Knowledge review: fused student levels against teacher levels (ReviewKD).

Shapes: B images, L levels from fine to coarse, student maps (B, C_l, H, W), teacher maps (B, D_l, H', W'), M mid
channels.

From the coarsest level to the finest, the student's map x (to M channels by 1x1 convolution and BN) is fused with
the fusion r of the level above,

.. math::
    f = a_1 x + a_2 r,\quad (a_1, a_2) = \sigma(conv_{1x1}([x, r]))

and compared with the teacher's map after a 3x3 convolution and BN to D_l channels, at full size and pooled to 4 x
4, 2 x 2 and 1 x 1:

.. math::
    HCL = \frac{\sum_j 2^{-j} MSE(pool_j(out), pool_j(t))}{\sum_j 2^{-j}}

Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv 2104.09044.
"""

from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.losses.checks import as_levels, check_count, check_pair, check_tensor, check_weight
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS

POOLED_SIZES = (4, 2, 1)


@full_precision
def hcl_loss(preds_S: Tensor, preds_T: Tensor) -> Tensor:
    """Hierarchical context loss of one level.

    Args:
        preds_S: Student maps (B, D, H, W); only they get a gradient.
        preds_T: Teacher maps (B, D, H, W).

    Returns:
        Scalar >= 0, mean over everything; 0 at identity. Pooled sizes that are no smaller than the map are
        skipped, and each size used weighs half of the one before. An empty map gives a zero that is still in the
        graph.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 4-D, not floating point, or of different shapes.

    Example:
        >>> import torch
        >>> maps = torch.rand(2, 4, 8, 8)
        >>> round(float(hcl_loss(maps + 2, maps)), 5)
        4.0
    """
    check_pair(preds_S, preds_T, (4,), '(B, D, H, W)')
    if preds_S.numel() == 0:
        return preds_S.sum() * 0
    preds_T = preds_T.detach()
    loss = F.mse_loss(preds_S, preds_T)
    weight = weights = 1.0
    for size in POOLED_SIZES:
        if size >= min(preds_S.shape[-2:]):
            continue
        weight /= 2
        weights += weight
        # pooling is linear: the pooled difference is the pools' difference
        pooled = F.adaptive_avg_pool2d(preds_S - preds_T, size)
        loss = loss + weight * pooled.square().mean()
    return loss / weights


class AttentionFusion(nn.Module):
    """One level's fusion with the level above ("ABF" in the paper).

    Args:
        in_channels: Width of the student's map.
        mid_channels: Width of the fused maps.
        out_channels: Width of the teacher's map.
        fuse: Whether there is a level above.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, fuse: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(in_channels, mid_channels, 1, bias=False), nn.BatchNorm2d(mid_channels))
        self.out = nn.Sequential(
            nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.attention = nn.Conv2d(2 * mid_channels, 2, 1) if fuse else None
        for layers in (self.reduce, self.out):
            nn.init.kaiming_uniform_(next(layers.parameters()), a=1)

    def forward(self, maps: Tensor, above: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Output (B, D, \\*size) and fusion (B, M, \\*size) of one level.

        ``above`` is the fusion of the coarser level, ``size`` the teacher's.
        """
        fused = self.reduce(maps)
        if self.attention is not None and above is not None:
            above = _resize(above, fused.shape[-2:])
            scores = self.attention(torch.cat([fused, above], 1)).sigmoid()
            fused = fused * scores[:, :1] + above * scores[:, 1:]
        fused = _resize(fused, size)
        return self.out(fused), fused


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=size, mode='nearest')


@MODELS.register_module()
class ReviewKDLoss(nn.Module):
    """Sum over levels of :func:`hcl_loss` on fused student maps.

    It has parameters, so widths are given here or by :meth:`setup` before the optimizer is built. BN uses each
    process's own images unless the Runner's ``sync_bn`` is set, and needs more than one value for each channel of
    a level.

    Args:
        in_channels: Student widths, from fine to coarse; one number is for all ``num_levels``.
        out_channels: Teacher widths.
        num_levels: Needed where both widths are one number.
        mid_channels: Width of the fused maps.
        loss_weight: Factor on the whole.

    Raises:
        ValueError: A setting is out of range, or the widths do not agree.
    """

    relates_levels = True
    fits_widths = True  # the fusions bring the student's widths to the teacher's

    def __init__(
        self,
        in_channels: int | Sequence[int] | None = None,
        out_channels: int | Sequence[int] | None = None,
        num_levels: int | None = None,
        mid_channels: int = 256,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.mid_channels = check_count('mid_channels', mid_channels)
        self.loss_weight = check_weight('loss_weight', loss_weight)
        self.widths: tuple[tuple[int, ...], ...] | None = None
        self.fusions = nn.ModuleList()
        if in_channels is None and out_channels is None:
            return
        if in_channels is None or out_channels is None:
            raise value_error(
                'in_channels and out_channels', 'both given or both left out', f'{in_channels} and {out_channels}'
            )
        given = [len(widths) for widths in (in_channels, out_channels) if not isinstance(widths, int)]
        levels = num_levels or (given[0] if given else 1)
        self.setup(_per_level(in_channels, levels), _per_level(out_channels, levels))

    def setup(self, student_widths: Sequence[int], teacher_widths: Sequence[int]) -> None:
        """Makes the layers for widths from fine to coarse; further calls with the same widths change nothing."""
        widths = tuple(student_widths), tuple(teacher_widths)
        if len(widths[0]) != len(widths[1]) or not widths[0]:
            raise value_error(
                'in_channels and out_channels', 'one number for each level', f'{widths[0]} and {widths[1]}'
            )
        if self.widths not in (None, widths):
            raise value_error(
                'student and teacher widths',
                f'{self.widths}',
                f'{widths}',
                'Leave out in_channels and out_channels of kd_ext.ReviewKDLoss: they are found from the detectors.',
            )
        if self.widths is None:
            self.widths = widths
            coarsest = len(widths[0]) - 1
            self.fusions.extend(
                AttentionFusion(
                    check_count('in_channels', student),
                    self.mid_channels,
                    check_count('out_channels', teacher),
                    fuse=level < coarsest,
                )
                for level, (student, teacher) in enumerate(zip(*widths))
            )

    def forward(self, preds_S: Tensor | Sequence[Tensor], preds_T: Tensor | Sequence[Tensor]) -> Tensor:
        """Weighted loss of all levels, given from fine to coarse."""
        preds_S, preds_T = as_levels(preds_S, preds_T)
        self._check(preds_S, preds_T)
        if not all(maps.numel() for maps in (*preds_S, *preds_T)):
            return torch.stack([one.float().sum() for one in (*preds_S, *self.parameters())]).sum() * 0
        total, fused = preds_S[0].new_zeros((), dtype=torch.float32), None
        for level in reversed(range(len(preds_S))):
            fusion, teacher = self.fusions[level], preds_T[level]
            student = preds_S[level].to(next(fusion.parameters()).dtype)
            out, fused = fusion(student, fused, teacher.shape[-2:])
            total = total + hcl_loss(out, teacher)
        return self.loss_weight * total

    def _check(self, preds_S: Sequence[Tensor], preds_T: Sequence[Tensor]) -> None:
        for name, preds in (('preds_S', preds_S), ('preds_T', preds_T)):
            for maps in preds:
                check_tensor(name, maps, (4,), '(B, C, H, W)')
                if self.training and maps[:, :1].numel() == 1:
                    rule, found = 'maps of more than one value for each channel', f'shape {tuple(maps.shape)}'
                    raise value_error(name, rule, found, 'BN needs them: take more images a batch, or finer levels=.')
        got = tuple(tuple(maps.shape[1] for maps in preds) for preds in (preds_S, preds_T))
        if got != self.widths:
            remedy = 'Call setup(student_widths, teacher_widths) before training.'
            raise value_error('preds_S and preds_T', f'maps of widths {self.widths}', got, remedy)
        sizes = {len(maps) for maps in (*preds_S, *preds_T)}
        if len(sizes) > 1:
            raise value_error('preds_S and preds_T', 'of one batch size', sorted(sizes))


def _per_level(widths: int | Sequence[int], num_levels: int) -> Sequence[int]:
    return (widths,) * num_levels if isinstance(widths, int) else widths
