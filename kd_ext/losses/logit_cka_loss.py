r"""Centred kernel alignment of class logits (LCKA).

Shapes: N samples, K classes; the rows of X, Y (N, K) are the logits of student and teacher.

.. math::
    L = w_{intra} (1 - CKA(X, Y)) + w_{inter} (1 - CKA(X^T, Y^T))

``intra`` compares the N x N Gram matrices over samples, ``inter`` those over the columns. A dense map (B, K, H, W) is
read in one of two ways:

* ``samples='pixels'``: N = B H W samples of K classes. Both terms come from K x K products.
* ``samples='images'``: as released for segmentation, N = B samples, each image flattened to one row of K H W columns.
  Both terms come from B x B products.

So nothing is larger than the logits. Forward and backward over pixels take six times their memory, 7.5 MiB at
(2, 19, 64, 128), a pair of 512 x 1024 images at stride 8.

Source: Zhou et al., IJCAI 2024, arXiv 2401.11824.
"""

from __future__ import annotations

from typing import Callable

from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.losses.checks import check_flag, check_pair, check_some_weight, check_weight
from kd_ext.losses.cka import AlignmentLoss, Task
from kd_ext.losses.feature_cka_loss import image_rows
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS

SAMPLES = ('pixels', 'images')


def _class_rows(logits: Tensor) -> Tensor:
    """(N, K) -> (1, K, N); (B, K, H, W) -> (1, K, B H W)."""
    if logits.dim() == 4:
        return logits.permute(1, 0, 2, 3).reshape(1, logits.shape[1], -1)
    return logits.mT[None]


def _check_samples(samples: str) -> str:
    if samples not in SAMPLES:
        raise value_error('samples', f'one of {", ".join(map(repr, SAMPLES))}', repr(samples))
    return samples


@full_precision
def logit_cka_loss(
    preds_S: Tensor,
    preds_T: Tensor,
    intra_weight: float = 1.0,
    inter_weight: float = 1.0,
    center: bool = True,
    samples: str = 'pixels',
) -> Tensor:
    """CKA loss of class logits; see the module's formula.

    Args:
        preds_S: Student logits (N, K) or (B, K, H, W); only they get a gradient.
        preds_T: Teacher logits of the same shape.
        intra_weight: Weight of the alignment between samples.
        inter_weight: Weight of the alignment between columns: classes, or the K H W values of an image.
        center: Centre over what is compared first; ``False`` as in the released code.
        samples: ``'pixels'`` or ``'images'``; the same for (N, K).

    Returns:
        Scalar >= 0 up to rounding errors; 0 where preds_S = a * preds_T with a > 0. A single image has no relations:
        its ``intra`` teaches nothing. Without samples, a zero that is still in the graph.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 2-D or 4-D, not floating point, different shapes, or another word for ``samples``.

    Example:
        >>> import torch
        >>> logits = torch.randn(64, 20)
        >>> float(logit_cka_loss(logits, 2 * logits)) < 1e-5
        True
    """
    _check_samples(samples)
    check_pair(preds_S, preds_T, (2, 4), '(N, K) or (B, K, H, W)')
    if preds_S.numel() == 0 or intra_weight == inter_weight == 0:
        return preds_S.sum() * 0
    if samples == 'images':
        to_rows: Callable[[Tensor], Tensor] = image_rows
        task = Task(rows=intra_weight, columns=inter_weight, center=center)
    else:  # samples are the columns of class rows: intra is the column alignment
        to_rows, task = _class_rows, Task(rows=inter_weight, columns=intra_weight, center=center)
    return AlignmentLoss.apply(preds_S, preds_T.detach(), to_rows, preds_S.shape[1], task)


@MODELS.register_module()
class LogitCKALoss(nn.Module):
    """:func:`logit_cka_loss` times ``loss_weight``; the other arguments are those of the function.

    It relates the samples of a process: on several it is the mean of theirs.

    Raises:
        ValueError: A weight is negative or no number, both are 0, or a setting is none of its values.
    """

    def __init__(
        self,
        intra_weight: float = 1.0,
        inter_weight: float = 1.0,
        center: bool = True,
        loss_weight: float = 1.0,
        samples: str = 'pixels',
    ) -> None:
        super().__init__()
        self.intra_weight = check_weight('intra_weight', intra_weight)
        self.inter_weight = check_weight('inter_weight', inter_weight)
        check_some_weight(intra_weight=intra_weight, inter_weight=inter_weight)
        self.center = check_flag('center', center)
        self.loss_weight = check_weight('loss_weight', loss_weight)
        self.samples = _check_samples(samples)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Weighted :func:`logit_cka_loss`."""
        return self.loss_weight * logit_cka_loss(
            preds_S, preds_T, self.intra_weight, self.inter_weight, self.center, self.samples
        )
