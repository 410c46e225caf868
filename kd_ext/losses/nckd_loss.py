r"""Neural-collapse inspired distillation (NCKD): prototypes and their angles.

Shapes: N regions, D embedding width, R rows of raw class means; label k is row k. Classes that were never seen
have a zero row and are left out.

.. math::
    \tilde m_k = \frac{mean_k - g}{\lVert mean_k - g\rVert},\quad
    z_i = \frac{s_i - g}{\lVert s_i - g\rVert},\quad
    g = \text{mean of } mean_k \text{ over classes}

    NC1 = -\frac{1}{N} \sum_i \log
        \frac{\exp(\langle z_i, \tilde m_{y_i}\rangle / \tau)}
             {\sum_k \exp(\langle z_i, \tilde m_k\rangle / \tau)}

    NC2 = \text{mean over } k \ne l \text{ of }
        (\langle\tilde s_k, \tilde s_l\rangle
         - \langle\tilde m_k, \tilde m_l\rangle)^2

Source: Neural Collapse Inspired Knowledge Distillation, AAAI 2025, arXiv 2412.11788. No code was released: these
formulas are OUR reading of the paper's components. NCKD also abbreviates "non-target-class knowledge
distillation", one half of DKD (CVPR 2022), which is something else.
"""

from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from kd_ext.errors import expected, value_error
from kd_ext.losses.checks import (
    check_count,
    check_flag,
    check_some_weight,
    check_temperature,
    check_tensor,
    check_weight,
)
from kd_ext.losses.labelled import (
    EPS,
    batch_means,
    check_labelled,
    class_directions,
    directions,
    known_classes,
    known_rows,
)
from kd_ext.losses.precision import full_precision, upcast
from kd_ext.registry import MODELS


@full_precision
def nc1_loss(
    preds_S: Tensor,
    labels: Tensor,
    class_means: Tensor,
    tau: float = 0.1,
    center: bool = True,
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Prototype alignment: NC1 of the module's formulas.

    Args:
        preds_S: Student embeddings (N, D), in the teacher's width.
        labels: Class of each region (N,). Labels without a class mean (ignored, never seen, or not in
            ``class_means``) are left out.
        class_means: Raw teacher means (R, D). Leave the background out with ``class_means[:K]``.
        tau: Temperature > 0 of the softmax over the known classes.
        center: Take g, the mean of the known class means, from both.
        avg_factor: Divisor in place of the number of counted regions.

    Returns:
        Scalar >= 0, mean over counted regions. Even perfect alignment has a positive floor, log(1 + (K-1)
        exp(-K / (K-1) / tau)) for an ETF; with a single class it is 0. Without regions, a zero that is still in
        the graph.

    Raises:
        TypeError: An embedding or mean is no tensor.
        ValueError: Wrong dimensions, or widths that differ.

    Example:
        >>> import torch
        >>> means = torch.eye(4)
        >>> labels = torch.tensor([0, 1, 3])
        >>> float(nc1_loss(means[labels], labels, means)) < 1e-4
        True
    """
    check_labelled(preds_S, labels, class_means)
    if not preds_S.numel():
        return preds_S.sum() * 0
    class_means = class_means.detach().to(preds_S.dtype)
    known = known_classes(class_means)
    rows, centre = class_directions(class_means, known, center)
    logits = directions(preds_S - centre) @ rows.mT / tau
    logits = logits.masked_fill(~known, torch.finfo(logits.dtype).min)
    counted, index = known_rows(labels, known)
    terms = -logits.log_softmax(1).gather(1, index[:, None])[:, 0]
    total = torch.where(counted, terms, terms.new_zeros(())).sum()
    if avg_factor is None:
        avg_factor = counted.sum()
    return total / torch.as_tensor(avg_factor).clamp(min=EPS)


@full_precision
def nc2_loss(student_means: Tensor, class_means: Tensor, center: bool = True) -> Tensor:
    """Transfer of the angles between classes: NC2 of the module's formulas.

    The target is the teacher's measured Gram matrix, not the ideal -1/(K-1). Each side is centred by its own g,
    over the classes that both have seen.

    Args:
        student_means: Raw student means (R, D_S).
        class_means: Raw teacher means (R, D_T).
        center: Centre before normalising.

    Returns:
        Scalar >= 0, mean over pairs of classes that both have seen; 0 where there is none. 0 for a rotated, scaled
        or (if centred) shifted copy.

    Raises:
        TypeError: Not two tensors.
        ValueError: Not 2-D, not floating point, or different numbers of rows.

    Example:
        >>> import torch
        >>> means = torch.rand(5, 16)
        >>> float(nc2_loss(2 * means + 1, means)) < 1e-6
        True
    """
    check_tensor('student_means', student_means, (2,), '(R, D)')
    check_tensor('class_means', class_means, (2,), '(R, D)')
    if len(student_means) != len(class_means):
        found = f'{tuple(student_means.shape)} and {tuple(class_means.shape)}'
        raise value_error('student_means and class_means', '(R, D) with the same R', found)
    class_means = class_means.detach().to(student_means.dtype)
    known = known_classes(student_means.detach()) & known_classes(class_means)
    student, teacher = (class_directions(means, known, center)[0] for means in (student_means, class_means))
    pairs = known.sum() * (known.sum() - 1) / 2
    gaps = (student @ student.mT - teacher @ teacher.mT).triu(diagonal=1)
    return gaps.square().sum() / pairs.clamp(min=1)


@MODELS.register_module()
class NCKDLoss(nn.Module):
    """NC1 and NC2 as separate terms; see the module's formulas.

    The student's class means are running means over the training, as a batch holds too few classes. A class that
    occurs in a batch moves by ``share = max(momentum, n / (n_before + n))`` towards its mean over the n regions of
    all processes: a plain average at first, then an exponential one. The mean in use holds the current batch with
    that share, and the gradient flows through it alone. In eval mode nothing is stored.

    All processes give the same state, and the mean of their losses and gradients is that of one process with the
    joined batch; so every process has to call it in every step, without regions too.

    Args:
        tau: Temperature of NC1. At 0.1 perfect alignment with 80 classes in an ETF costs 0.003, so the
            loss can be learned down to nearly nothing; at 1.0 it would stay at 3.4 whatever is learned, and far
            below 0.1 the nearest class alone would decide.
        nc1_weight: Weight of NC1; 0 switches it off, and it is neither computed nor logged.
        nc2_weight: Weight of NC2, likewise; its gradient is about ``momentum`` times that of means over the batch
            alone.
        center: Take the mean over classes out first.
        include_background: Whether label K is a class as well.
        momentum: Least share of the current batch, in (0, 1].
        num_classes: K, given with ``width``; without them :meth:`setup` has to be called.
        width: D.
        loss_weight: Factor on both terms.

    Raises:
        ValueError: A setting is out of its range, or both terms are off. (NC3 acts through the student's classifier,
            ``kd_ext.PrototypeClassifier``, with or without this loss.)
    """

    least_classes = 2  # both terms compare classes with one another
    student_means: Tensor | None
    student_counts: Tensor | None

    def __init__(
        self,
        tau: float = 0.1,
        nc1_weight: float = 1.0,
        nc2_weight: float = 1.0,
        center: bool = True,
        include_background: bool = False,
        momentum: float = 0.1,
        num_classes: int | None = None,
        width: int | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.tau = check_temperature(tau)
        self.nc1_weight = check_weight('nc1_weight', nc1_weight)
        self.nc2_weight = check_weight('nc2_weight', nc2_weight)
        check_some_weight(nc1_weight=nc1_weight, nc2_weight=nc2_weight)
        self.parts = tuple(name for name, weight in (('nc1', nc1_weight), ('nc2', nc2_weight)) if weight)
        self.center = check_flag('center', center)
        self.include_background = check_flag('include_background', include_background)
        self.momentum = check_weight('momentum', momentum)
        if not 0 < self.momentum <= 1:
            raise value_error('momentum', 'in (0, 1]', repr(momentum))
        self.loss_weight = check_weight('loss_weight', loss_weight)
        self.register_buffer('student_means', None)
        self.register_buffer('student_counts', None)
        if num_classes is None and width is None:
            return
        if num_classes is None or width is None:
            raise value_error('num_classes and width', 'both given or both left out', f'{num_classes} and {width}')
        self.setup(num_classes, width)

    def setup(self, num_classes: int, width: int) -> None:
        """Makes the buffers, before checkpoints are read; further calls with the same numbers change nothing."""
        shape = (check_count('num_classes', num_classes) + self.include_background, check_count('width', width))
        if self.student_means is None:
            self.student_means = torch.zeros(shape)
            self.student_counts = torch.zeros(shape[0], dtype=torch.long)
        elif self.student_means.shape != shape:
            remedy = 'Leave out num_classes and width of kd_ext.NCKDLoss: the detector tells them.'
            raise value_error('student_means', f'of shape {shape}', tuple(self.student_means.shape), remedy)

    def forward(self, preds_S: Tensor, labels: Tensor, class_means: Tensor) -> dict[str, Tensor]:
        """Weighted terms ``nc1`` and ``nc2``, without one that is off.

        Args:
            preds_S: Student embeddings (N, D).
            labels: Class of each region (N,), K for background.
            class_means: Raw teacher means (K or K+1, D).
        """
        class_means = self._checked(preds_S, labels, class_means)
        # upcast here, so that the gradients of both terms add up before they are rounded to a half
        preds_S, rows = upcast(preds_S), len(class_means)
        means, counts = self._blended(preds_S, labels)
        total = (counts[:rows] * known_classes(class_means)).sum()
        terms = {}
        if self.nc1_weight:
            nc1 = nc1_loss(preds_S, labels, class_means, self.tau, self.center, total / get_world_size())
            terms['nc1'] = self.loss_weight * self.nc1_weight * nc1
        if self.nc2_weight:
            # without regions there is nothing to learn, although the running means differ
            nc2 = nc2_loss(means[:rows], class_means, self.center) * (total > 0)
            terms['nc2'] = self.loss_weight * self.nc2_weight * nc2
        return terms

    def _checked(self, preds_S: Tensor, labels: Tensor, class_means: Tensor) -> Tensor:
        """The teacher's means that go with the buffers' rows."""
        check_labelled(preds_S, labels, class_means)
        if self.student_means is None:
            remedy = 'Call setup(num_classes, width), or pass them to kd_ext.NCKDLoss.'
            raise RuntimeError(expected('num_classes and width', 'known before training', 'neither', remedy))
        rows, width = self.student_means.shape
        foreground = rows - self.include_background
        if preds_S.shape[1] != width or len(class_means) not in (foreground, foreground + 1):
            rule, found = f'({foreground} or {foreground + 1}, {width})', f'{tuple(class_means.shape)}'
            raise value_error('class_means', rule, found, 'Class means belong to one data set and one teacher.')
        return class_means[:rows]

    def _blended(self, preds_S: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Running means (rows, D) with the current batch in them, and the batch's counts (rows,).

        The buffers are replaced, not written to: torch.compile computes the share again in the backward pass, and
        would find the counts of after the step in them, hence a gradient of the wrong size.
        """
        running, seen = self.student_means, self.student_counts
        assert running is not None and seen is not None  # _checked says so in words
        batch, counts = batch_means(preds_S, labels, len(running))
        share = counts / (seen + counts).clamp(min=1)
        share = share.clamp(min=self.momentum) * (counts > 0)
        means = running + share[:, None] * (batch - running)
        if self.training:
            self.student_means, self.student_counts = means.detach(), seen + counts.long()
        return means, counts
