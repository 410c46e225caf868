r"""Matching of Lipschitz constants between backbone stages (LONDON).

Shapes: B images, n stages F_k of (B, C_k, H_k, W_k), F_1 the finest; h x w is the size of stage k + 1, to which
stage k is pooled (adaptive average).

.. math::
    M_k = \mathrm{pool}(F_k) F_{k+1}^T / (h w)
        \in R^{C_k \times C_{k+1}},\qquad
    \sigma_k = \lVert M_k\rVert_2

    L = \sum_{k=1}^{n-1} 2^{-(n-k)}\,\mathrm{mean}_B
        (\sigma_k^S - \sigma_k^T)^2

sigma and its exact gradient come from :mod:`kd_ext.losses.spectral`.

Source: Shang et al., Lipschitz Continuity Guided Knowledge Distillation, ICCV 2021, arXiv 2108.12905. Differences
to the released code, which has no gradient, are on the page ``docs/methods/lipschitz.md``.
"""

from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor, nn

from kd_ext.errors import type_error, value_error
from kd_ext.losses.checks import as_levels, check_count, check_flag, check_weight
from kd_ext.losses.precision import full_precision
from kd_ext.losses.spectral import EPS, stage_sigmas
from kd_ext.registry import MODELS


@full_precision
def _lipschitz_loss(
    preds_S: Sequence[Tensor],
    preds_T: Sequence[Tensor],
    num_iters: int | None,
    relative: bool,
    weights: Sequence[float],
) -> Tensor:
    if any(maps.numel() == 0 for maps in (*preds_S, *preds_T)):
        return torch.stack([maps.sum() for maps in preds_S]).sum() * 0
    with torch.no_grad():
        target = stage_sigmas([maps.detach() for maps in preds_T], num_iters)
    error = stage_sigmas(preds_S, num_iters) - target
    if relative:
        error = error / (target + EPS)
    # numbers one by one: a tensor of them would be copied to a GPU, which waits
    return sum((weight * term for weight, term in zip(weights, error.square().mean(1))), error.new_zeros(()))


def lipschitz_loss(
    preds_S: Sequence[Tensor],
    preds_T: Sequence[Tensor],
    num_iters: int | None = 10,
    relative: bool = False,
    stage_weights: Sequence[float] | None = None,
) -> Tensor:
    """Lipschitz matching loss; see the module's formula.

    Args:
        preds_S: Student stages, (B, C_k, H_k, W_k) each, n >= 2 of them.
        preds_T: As many teacher stages of the same images; widths and sizes may differ from the student's.
        num_iters: Steps of the power iteration, at most; None for as many as the gradient needs, see
            :func:`~kd_ext.losses.spectral.stage_sigmas`.
        relative: Divide each difference by the teacher's sigma.
        stage_weights: n - 1 weights in place of 2^-(n-k).

    Returns:
        Scalar >= 0; 0 for equal stages. Without images, a zero that is still in the graph.

    Raises:
        TypeError: No tuple of tensors.
        ValueError: Stage counts, batch sizes or dimensions do not fit.

    Example:
        >>> import torch
        >>> stages = torch.rand(2, 4, 16, 16), torch.rand(2, 8, 8, 8)
        >>> float(lipschitz_loss(stages, stages))
        0.0
    """
    _check_stages(preds_S, preds_T)
    pairs = len(preds_S) - 1
    if stage_weights is None:
        stage_weights = [2.0 ** (k - pairs - 1) for k in range(1, pairs + 1)]
    _check_weights(stage_weights, pairs)
    return _lipschitz_loss(preds_S, preds_T, num_iters, relative, stage_weights)


def _check_stages(preds_S: Sequence[Tensor], preds_T: Sequence[Tensor]) -> None:
    for name, stages in (('preds_S', preds_S), ('preds_T', preds_T)):
        if not isinstance(stages, (tuple, list)) or not all(isinstance(maps, Tensor) for maps in stages):
            rule = 'a tuple of stage features (B, C_k, H_k, W_k)'
            raise type_error(name, rule, type(stages).__name__, 'Take several stages of the backbone.')
        for k, maps in enumerate(stages):
            if maps.dim() != 4 or not maps.is_floating_point():
                raise value_error(
                    f'{name}[{k}]', 'floating point (B, C_k, H_k, W_k)', f'{maps.dtype} of shape {tuple(maps.shape)}'
                )
    as_levels(preds_S, preds_T)
    if len(preds_S) < 2:
        raise value_error('preds_S', 'at least 2 stages', len(preds_S), 'The loss relates neighbouring stages.')
    batches = {len(maps) for maps in (*preds_S, *preds_T)}
    if len(batches) > 1:
        raise value_error('all stages', 'of one batch size', sorted(batches))


def _check_weights(stage_weights: Sequence[float], pairs: int) -> None:
    if len(stage_weights) != pairs:
        raise value_error('stage_weights', f'{pairs} numbers, one per pair of stages', f'{len(stage_weights)}')


@MODELS.register_module()
class LipschitzLoss(nn.Module):
    """:func:`lipschitz_loss` times a weight.

    Widths may differ, so ``kd_ext.DetectionDistill`` adds no connectors unless an entry names them
    (``connector=``).

    Args:
        num_iters: Steps of the power iteration, at most; None for as many as the gradient needs.
        loss_weight: Factor on the whole.
        relative: Compare relative to the teacher's values, which makes the weight independent of the features'
            magnitude.
        stage_weights: n - 1 weights in place of 2^-(n-k).

    Raises:
        ValueError: A weight is negative or no number, ``relative`` is neither True nor False, or ``num_iters`` is
            neither None nor a whole number >= 1.
    """

    relates_levels = True
    fits_widths = True
    least_levels = 2

    def __init__(
        self,
        num_iters: int | None = 10,
        loss_weight: float = 1.0,
        relative: bool = False,
        stage_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.num_iters = None if num_iters is None else check_count('num_iters', num_iters)
        self.loss_weight = check_weight('loss_weight', loss_weight)
        self.relative = check_flag('relative', relative)
        self.stage_weights = stage_weights and [check_weight('stage_weights', weight) for weight in stage_weights]

    def setup(self, num_levels: int) -> None:
        """Checks the weights for n = ``num_levels`` before any training."""
        if self.stage_weights is not None:
            _check_weights(self.stage_weights, num_levels - 1)

    def forward(self, preds_S: Sequence[Tensor], preds_T: Sequence[Tensor]) -> Tensor:
        """Weighted :func:`lipschitz_loss`."""
        return self.loss_weight * lipschitz_loss(preds_S, preds_T, self.num_iters, self.relative, self.stage_weights)
