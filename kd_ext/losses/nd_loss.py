r"""Norm and direction of region embeddings against class means (ND).

Shapes: N regions, D embedding width, K foreground classes, R rows of class means (K, or K+1 with the background
last); label k is row k, label K is the background.

.. math::
    L = \frac{1}{N} \sum_i \Big[1 - \frac{\langle s_i, c_{y_i}\rangle}
        {\max(\lVert s_i\rVert, \lVert t_i\rVert)}\Big],\quad
    c_k = \frac{mean_k}{\lVert mean_k\rVert}

Source: Wang et al., Improving Knowledge Distillation via Regularizing Feature Norm and Direction, ECCV 2024, arXiv
2305.17007. Differences to the released code are on the page ``docs/methods/nd.md``.
"""

from typing import Optional

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.losses.checks import check_count, check_pair, check_weight
from kd_ext.losses.labelled import EPS, check_labelled, class_counts, directions, known_rows
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS


def foreground(class_means: Tensor, num_classes: Optional[int]) -> Tensor:
    """The rows of the K foreground classes.

    Without ``num_classes`` the last row is taken for the background.
    """
    rows = len(class_means)
    if num_classes is None:
        return class_means[:-1]
    if rows not in (num_classes, num_classes + 1):
        raise value_error(
            'class_means',
            f'{num_classes} rows, or {num_classes + 1} with the background',
            f'{rows} rows',
            'Class means belong to one data set and one teacher.',
        )
    return class_means[:num_classes]


class _Cosines(torch.autograd.Function):
    """<s, c> / max(||s||, floor) of each row: (N,).

    With n the divisor the gradient in s is c / n, and where n is ||s|| also
    - <s, c> s / n^3. Written out it passes twice over the rows instead of
    the seven times of the separate steps. Rows are gathered by ``index_select``, which copies whole rows where
    ``targets[index]`` takes ten times as long on a CPU.
    """

    @staticmethod
    def forward(ctx, rows, targets, index, floors):
        norms = torch.linalg.vector_norm(rows, dim=1)
        own = norms > floors
        norms = torch.where(own, norms, floors)
        # no signal in either: not aligned, and no gradient of size 1 / EPS
        scale = torch.where(norms > EPS, 1 / norms.clamp(min=EPS), 0.0)
        ctx.buffer = targets.index_select(0, index).mul_(rows)
        cosines = ctx.buffer.sum(1) * scale
        ctx.save_for_backward(rows, targets, index, scale, own * cosines)
        return cosines

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        rows, targets, index, scale, own = ctx.saved_tensors
        grad = grad * scale
        # a second backward, of a retained graph, makes its own
        buffer, ctx.buffer = ctx.buffer, None
        out = torch.index_select(targets, 0, index, out=buffer)
        out.mul_(grad[:, None])
        return out.addcmul_(rows, (-grad * own * scale)[:, None]), *[None] * 3


@full_precision
def nd_loss(
    preds_S: Tensor,
    preds_T: Optional[Tensor],
    labels: Tensor,
    class_means: Tensor,
    include_background: bool = True,
    class_balanced: bool = False,
    num_classes: Optional[int] = None,
    class_sizes: Optional[Tensor] = None,
) -> Tensor:
    """ND loss of region embeddings; see the module's formula.

    Args:
        preds_S: Student embeddings (N, D); the gradient goes here only.
        preds_T: Teacher embeddings (N, D) of the same regions, used for their norms and detached. ``None`` where
            teacher and student have no regions in common (query heads): the raw norm of the label's class mean
            stands in for the teacher's.
        labels: Class of each region (N,). Left out are negative labels, labels without a row in ``class_means``,
            and classes whose mean is zero (never seen).
        class_means: Raw teacher means (R, D), R = K or K+1, detached. With K rows the background is left out.
        include_background: Whether label K counts.
        class_balanced: Average over regions in each class first, then over the classes present, so that background
            does not outweigh all.
        num_classes: K. Needed where the background is to be left out and ``class_means`` may not hold it; else the
            last row is it.
        class_sizes: Number of regions of each class (R,) to divide by, in place of those of this call: their mean
            over processes.

    Returns:
        Scalar >= 0, mean over this process's counted regions; 0 where every s_i has the direction of its class
        mean and at least ||t_i||. No region gives a zero that is still in the graph.

    Raises:
        TypeError: An input is no tensor.
        ValueError: Wrong dimensions, widths that differ, labels that do not fit, or class means that do not fit
            ``num_classes``.

    Example:
        >>> import torch
        >>> means, labels = torch.rand(5, 16), torch.tensor([0, 3, 4])
        >>> student = 2 * means[labels]
        >>> float(nd_loss(student, student / 3, labels, means)) < 1e-5
        True
    """
    check_labelled(preds_S, labels, class_means)
    if preds_T is not None:
        check_pair(preds_S, preds_T, (2,), '(N, D)')
    if not include_background:
        class_means = foreground(class_means, num_classes)
    if not preds_S.numel() or not len(class_means):
        return preds_S.sum() * 0
    class_means = class_means.detach().to(preds_S.dtype)
    mean_norms = torch.linalg.vector_norm(class_means, dim=1)
    counted, index = known_rows(labels, mean_norms > EPS)
    weights = counted.to(preds_S.dtype)
    if class_sizes is None:
        class_sizes = torch.zeros_like(mean_norms).index_add(0, index, weights)
    class_sizes = class_sizes[: len(class_means)] * (mean_norms > EPS)
    total = class_sizes.sum()
    if class_balanced:
        weights = weights / class_sizes[index].clamp(min=EPS)
        total = (class_sizes > 0).sum()
    floors = mean_norms[index] if preds_T is None else torch.linalg.vector_norm(preds_T.detach(), dim=1)
    cosines = _Cosines.apply(preds_S, directions(class_means), index, floors)
    return (weights * (1 - cosines)).sum() / total.clamp(min=EPS)


@MODELS.register_module()
class NDLoss(nn.Module):
    """:func:`nd_loss` times a weight.

    Args:
        loss_weight (float): Factor on the whole.
        include_background (bool): Whether background regions count, as in the released code.
        class_balanced (bool): Average over classes, not over regions.
        num_classes (int, optional): K, see :func:`nd_loss`.

    Raises:
        ValueError: A negative weight, or ``num_classes`` below 1.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        include_background: bool = True,
        class_balanced: bool = False,
        num_classes: Optional[int] = None,
    ) -> None:
        super().__init__()
        self.loss_weight = check_weight('loss_weight', loss_weight)
        self.include_background = bool(include_background)
        self.class_balanced = bool(class_balanced)
        self.num_classes = None if num_classes is None else check_count('num_classes', num_classes)

    def setup(self, num_classes: int) -> None:
        """Takes K from the detector where the config leaves it out."""
        if self.num_classes is None:
            self.num_classes = check_count('num_classes', num_classes)

    def forward(self, preds_S: Tensor, preds_T: Optional[Tensor], labels: Tensor, class_means: Tensor) -> Tensor:
        """Weighted :func:`nd_loss`.

        On several processes the divisor is its mean over them, so that the mean of losses and gradients is that of
        one process with all regions; every process has to call it in every step, without regions too.
        """
        class_sizes = None
        if get_world_size() > 1:
            class_sizes = class_counts(labels, len(class_means))
            all_reduce(class_sizes, 'mean')
        return self.loss_weight * nd_loss(
            preds_S,
            preds_T,
            labels,
            class_means,
            self.include_background,
            self.class_balanced,
            self.num_classes,
            class_sizes,
        )
