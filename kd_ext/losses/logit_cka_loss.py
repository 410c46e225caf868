r"""Centred kernel alignment of class logits (LCKA).

Shapes: N samples (pixels of a dense map are samples), K classes.

.. math::
    L = w_{intra} (1 - CKA(X, Y)) + w_{inter} (1 - CKA(X^T, Y^T))

with X, Y the (N, K) logits of student and teacher: intra compares the N x N Gram matrices over samples, inter the
K x K ones over classes. Both come from K x K products, as the rows of :mod:`kd_ext.losses.cka` are the classes
here: nothing is larger than the logits. Forward and backward take six times their memory, 7.5 MiB at (2, 19, 64,
128), a pair of 512 x 1024 images at stride 8.

Source: Zhou et al., IJCAI 2024, arXiv 2401.11824.
"""

from torch import Tensor, nn

from kd_ext.losses.checks import check_pair, check_some_weight, check_weight
from kd_ext.losses.cka import AlignmentLoss, Task
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS


def _class_rows(logits):
    """(N, K) -> (1, K, N); (B, K, H, W) -> (1, K, B H W)."""
    if logits.dim() == 4:
        return logits.permute(1, 0, 2, 3).reshape(1, logits.shape[1], -1)
    return logits.mT[None]


@full_precision
def logit_cka_loss(
    preds_S: Tensor, preds_T: Tensor, intra_weight: float = 1.0, inter_weight: float = 1.0, center: bool = True
) -> Tensor:
    """CKA loss of class logits; see the module's formula.

    Args:
        preds_S: Student logits (N, K) or (B, K, H, W).
        preds_T: Teacher logits of the same shape, detached.
        intra_weight: Weight of the alignment between samples.
        inter_weight: Weight of the alignment between classes.
        center: Centre over what is compared first.

    Returns:
        Scalar >= 0; 0 where preds_S = a * preds_T with a > 0. No samples give a zero that is still in the graph.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 2-D or 4-D, not floating point, different shapes.

    Example:
        >>> import torch
        >>> logits = torch.randn(64, 20)
        >>> float(logit_cka_loss(logits, 2 * logits)) < 1e-5
        True
    """
    check_pair(preds_S, preds_T, (2, 4), '(N, K) or (B, K, H, W)')
    if preds_S.numel() == 0 or intra_weight == inter_weight == 0:
        return preds_S.sum() * 0
    # samples are the columns of class rows: intra is the column alignment
    return AlignmentLoss.apply(
        preds_S,
        preds_T.detach(),
        _class_rows,
        preds_S.shape[1],
        Task(rows=inter_weight, columns=intra_weight, center=center),
    )


@MODELS.register_module()
class LogitCKALoss(nn.Module):
    """:func:`logit_cka_loss` times a weight.

    It relates the samples of a process: on several it is the mean of theirs.

    Args:
        intra_weight (float): Weight of the alignment between samples.
        inter_weight (float): Weight of the alignment between classes.
        center (bool): Centre over what is compared first.
        loss_weight (float): Factor on the whole.

    Raises:
        ValueError: A weight is negative or no number, or both are 0.
    """

    def __init__(
        self, intra_weight: float = 1.0, inter_weight: float = 1.0, center: bool = True, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.intra_weight = check_weight('intra_weight', intra_weight)
        self.inter_weight = check_weight('inter_weight', inter_weight)
        check_some_weight(intra_weight=intra_weight, inter_weight=inter_weight)
        self.center = bool(center)
        self.loss_weight = check_weight('loss_weight', loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Weighted :func:`logit_cka_loss`."""
        return self.loss_weight * logit_cka_loss(preds_S, preds_T, self.intra_weight, self.inter_weight, self.center)
