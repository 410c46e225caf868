r"""Norm and direction of region embeddings against class means (ND).

Shapes: N regions, D embedding width, K foreground classes, R rows of class means (K, or K+1 with the background
last); label k is row k, label K is the background.

.. math::
    L = \frac{1}{N} \sum_i \Big[1 - \frac{\langle s_i, c_{y_i}\rangle}
        {\max(\lVert s_i\rVert, \lVert t_i\rVert)}\Big],\quad
    c_k = \frac{mean_k}{\lVert mean_k\rVert}

The quotient is a product of two factors, which can act alone:

.. math::
    \text{direction: } \frac{\langle s_i, c_{y_i}\rangle}{\lVert s_i\rVert},\qquad
    \text{norm: } \frac{\lVert s_i\rVert}{\max(\lVert s_i\rVert, \lVert t_i\rVert)}

Source: Wang et al., Improving Knowledge Distillation via Regularizing Feature Norm and Direction, ECCV 2024, arXiv
2305.17007. Differences to the released code are on the page ``docs/methods/nd.md``.
"""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.losses.checks import check_count, check_flag, check_pair, check_weight
from kd_ext.losses.labelled import EPS, check_labelled, class_counts, directions, inverse, known_rows
from kd_ext.losses.precision import full_precision
from kd_ext.registry import MODELS


def foreground(class_means: Tensor, num_classes: int | None) -> Tensor:
    """The rows of the K foreground classes. Without ``num_classes`` the last row counts as the background."""
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


def _check_terms(direction: bool, norm: bool) -> None:
    if not any([check_flag('direction', direction), check_flag('norm', norm)]):
        remedy = 'Remove the loss to do without it, or set loss_weight=0.'
        raise value_error('direction and norm', 'not both False', 'a loss without any term', remedy)


@full_precision
def nd_loss(
    preds_S: Tensor,
    preds_T: Tensor | None,
    labels: Tensor,
    class_means: Tensor,
    include_background: bool = True,
    class_balanced: bool = False,
    num_classes: int | None = None,
    class_sizes: Tensor | None = None,
    direction: bool = True,
    norm: bool = True,
) -> Tensor:
    """ND loss of region embeddings; see the module's formula.

    Args:
        preds_S: Student embeddings (N, D); only they get a gradient.
        preds_T: Teacher embeddings (N, D) of the same regions, used for their norms. ``None`` where teacher and
            student have no regions in common (query heads): the raw norm of the label's class mean is used then.
        labels: Class of each region (N,). Negative labels, labels without a row in ``class_means``, and classes
            whose mean is zero (never seen) are left out.
        class_means: Raw teacher means (R, D), R = K or K+1. With K rows the background is left out.
        include_background: Whether label K counts.
        class_balanced: Average over the regions of each class first, then over the classes present, so that the
            background does not outweigh the rest.
        num_classes: K. Needed where the background is to be left out and ``class_means`` may not hold it; without
            it the last row is the background.
        class_sizes: Number of regions of each class (R,) to divide by, in place of those of this call: their mean
            over processes.
        direction: Whether the angle to the class mean counts.
        norm: Whether a norm below the teacher's counts.

    Returns:
        Scalar >= 0 up to rounding errors, mean over this process's counted regions; 0 where every s_i has the
        direction of its class mean and at least the norm of t_i. Without regions, a zero that is still in the graph.

    Raises:
        TypeError: An input is no tensor.
        ValueError: Wrong dimensions, widths that differ, labels that do not fit, class means that do not fit
            ``num_classes``, or neither direction nor norm.

    Example:
        >>> import torch
        >>> means, labels = torch.rand(5, 16), torch.tensor([0, 3, 4])
        >>> student = 2 * means[labels]
        >>> float(nd_loss(student, student / 3, labels, means)) < 1e-5
        True
    """
    _check_terms(direction, norm)
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
    norms = divisors = torch.linalg.vector_norm(preds_S, dim=1)
    if norm:
        floors = mean_norms[index] if preds_T is None else torch.linalg.vector_norm(preds_T.detach(), dim=1)
        divisors = torch.where(norms > floors, norms, floors)
    # index_select copies whole rows, where indexing takes ten times as long on a CPU
    along = (directions(class_means).index_select(0, index) * preds_S).sum(1) if direction else norms
    return (weights * (1 - along * inverse(divisors))).sum() / total.clamp(min=EPS)


@MODELS.register_module()
class NDLoss(nn.Module):
    """:func:`nd_loss` times a weight.

    Args:
        loss_weight: Factor on the whole.
        include_background: Whether background regions count, as in the released code.
        class_balanced: Average over classes instead of regions.
        num_classes: K; taken from the detector where it is left out.
        direction, norm: Which factors act, see :func:`nd_loss`.

    Raises:
        ValueError: A negative weight, a switch that is neither True nor False, no factor, or ``num_classes`` < 1.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        include_background: bool = True,
        class_balanced: bool = False,
        num_classes: int | None = None,
        direction: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        _check_terms(direction, norm)
        self.loss_weight = check_weight('loss_weight', loss_weight)
        self.include_background = check_flag('include_background', include_background)
        self.class_balanced = check_flag('class_balanced', class_balanced)
        self.num_classes = None if num_classes is None else check_count('num_classes', num_classes)
        self.direction, self.norm = direction, norm

    def setup(self, num_classes: int) -> None:
        """Takes K from the detector where the config leaves it out."""
        if self.num_classes is None:
            self.num_classes = check_count('num_classes', num_classes)

    def forward(self, preds_S: Tensor, preds_T: Tensor | None, labels: Tensor, class_means: Tensor) -> Tensor:
        """Weighted :func:`nd_loss`.

        On several processes the divisor is its mean over them, so that the mean of losses and gradients is that of
        one process with all regions. Every process has to call it in every step, without regions too.
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
            self.direction,
            self.norm,
        )
