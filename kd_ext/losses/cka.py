r"""Centred kernel alignment from small Gram matrices, value and gradient.

Shapes: C independent problems (channels), P rows (what is compared), D columns (the features of a row); X, Y are
(C, P, D), Gram matrices (C, P, P).

.. math::
    CKA(X, Y) = \frac{\langle K_X, K_Y\rangle_F}
                     {\lVert K_X\rVert_F\,\lVert K_Y\rVert_F},\quad
    K_X = H X X^T H,\quad H = I - \tfrac{1}{P} 1 1^T

The alignment of the transposes needs no D x D matrix, because :math:`\langle X^TX, Y^TY\rangle_F = \lVert
XY^T\rVert_F^2` and :math:`\lVert X^TX\rVert_F = \lVert XX^T\rVert_F`. So the loss is a function of P x P products
alone, and its gradient in X is :math:`A X + B Y` with two P x P matrices A and B.

With :math:`\hat K = K / \lVert K\rVert_F` and its rows :math:`\hat k_i`, the loss is a squared distance, and bounds
the maximum mean discrepancy (MMD, linear kernel) of the two sets of rows:

.. math::
    1 - CKA(X, Y) = \tfrac{1}{2} \lVert\hat K_X - \hat K_Y\rVert_F^2
        \ge \tfrac{P}{2} \Big\lVert\frac{1}{P}\sum_i \hat k_{X,i} - \frac{1}{P}\sum_i \hat k_{Y,i}\Big\rVert^2

(With centring the rows have mean 0, so the bound says something for ``center=False`` alone.)

Source: Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019, arXiv 1905.00414.
"""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Tuple

import torch
from torch import Tensor

from kd_ext.losses.precision import differentiable_once

EPS = 1e-6


class Task(NamedTuple):
    """What is compared: the weights of both alignments, and centring."""

    rows: float
    columns: float
    center: bool

    def views(self) -> list[Task]:
        """Tasks that need one set of products each.

        Rows and columns share theirs, unless each is centred its own way.
        """
        if self.center and self.rows and self.columns:
            return [self._replace(columns=0.0), self._replace(rows=0.0)]
        return [self]


# A (C, P, P) and Z (C, P, D): the gradient of a loss is a sum of A @ Z
Terms = List[Tuple[Tensor, Tensor]]


def _centered(rows: Tensor, task: Task) -> tuple[Tensor, Tensor | float]:
    """Rows without their mean, and the energy that went with it, (C,).

    Columns are compared after each row's mean is taken out. Rows lose one mean per problem, which changes nothing
    but the rounding: H does the rest.
    """
    if not task.center:
        return rows, 0.0
    mean = rows.mean(-1 if task.columns else (-2, -1), keepdim=True)
    lost = mean.square().mean((-2, -1)) * rows[0].numel()
    return rows - mean, lost


def _scaled_gram(rows: Tensor, lost: Tensor | float) -> tuple[Tensor, Tensor]:
    """a^2 X X^T of trace 1, and a of (C, 1, 1).

    a is 0, which switches a problem off, where the root mean square of X is below EPS, or no more than the rounding
    errors of the mean that was taken out.
    """
    gram = rows @ rows.mT
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    signal = trace > EPS**2 * (rows[0].numel() + lost)
    scale = torch.where(signal, trace, torch.inf).rsqrt()[:, None, None]
    return gram.mul_(scale.square()), scale


def _center_gram(gram: Tensor) -> Tensor:
    """H K H without forming H."""
    mean = gram.mean(-1, keepdim=True)
    return gram - mean - mean.mT + mean.mean(-2, keepdim=True)


def _inverse_norm(gram: Tensor) -> Tensor:
    """1 / ||K||_F of (C, 1, 1); 0, as in ``_scaled_gram``, without signal."""
    norm = gram.flatten(1).norm(dim=1)[:, None, None]
    return torch.where(norm > EPS, norm, torch.inf).reciprocal()


def _of_rows(gram_x: Tensor, gram_y: Tensor, center: bool) -> tuple[Tensor, Tensor]:
    """CKA of the rows, and its gradient in gram_x."""
    if center:
        gram_x, gram_y = _center_gram(gram_x), _center_gram(gram_y)
    inverse = _inverse_norm(gram_x)
    unit_x, unit_y = gram_x * inverse, gram_y * _inverse_norm(gram_y)
    value = (unit_x * unit_y).sum((-2, -1), keepdim=True)
    return value.sum(), (unit_y - value * unit_x).mul_(inverse)


def _of_columns(gram_x: Tensor, gram_y: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CKA of the columns, and its gradients in gram_x and in X Y^T."""
    inverse = _inverse_norm(gram_x)
    both = inverse * _inverse_norm(gram_y)
    value = cross.square().sum((-2, -1), keepdim=True) * both
    return value.sum(), gram_x * (-value * inverse.square()), cross * (2 * both)


def _view_loss(x: Tensor, y: Tensor, task: Task) -> tuple[Tensor, Terms]:
    """Value of one view and the terms of its gradient."""
    (x, lost_x), (y, lost_y) = _centered(x, task), _centered(y, task)
    (gram_x, a), (gram_y, b) = _scaled_gram(x, lost_x), _scaled_gram(y, lost_y)
    loss: Any = 0.0
    slope_x: Any = 0.0
    terms: Terms = []
    if task.rows:
        value, slope = _of_rows(gram_x, gram_y, task.center)
        loss = loss + task.rows * (len(x) - value)
        slope_x = slope_x - task.rows * slope
    if task.columns:
        cross = (x @ y.mT).mul_(a * b)
        value, slope, slope_y = _of_columns(gram_x, gram_y, cross)
        loss = loss + task.columns * (len(x) - value)
        slope_x = slope_x - task.columns * slope
        terms.append((slope_y.mul_(-task.columns * a * b), y))
    # a and b are constants: an alignment does not depend on the scale. So is centring: the slopes take a mean to
    # 0. 2: a Gram matrix holds X twice
    return loss, [(slope_x * (2 * a.square()), x), *terms]


def alignment_loss(x: Tensor, y: Tensor, task: Task) -> tuple[Tensor, Terms]:
    """Sum over C problems of w (1 - CKA), and the terms of its gradient.

    Args:
        x: Student rows (C, P, D).
        y: Teacher rows (C, P, D).
        task: Weights and centring.
    """
    values, terms = zip(*(_view_loss(x, y, view) for view in task.views()))
    return torch.stack(values).sum(), [term for view in terms for term in view]


def alignment_grad(terms: Terms) -> Tensor:
    """Gradient of :func:`alignment_loss` in x from its terms, (C, P, D)."""
    grad = torch.bmm(*terms[0])
    for term in terms[1:]:
        grad.baddbmm_(*term)
    return grad


class AlignmentLoss(torch.autograd.Function):
    """:func:`alignment_loss` of features (B, C, ...), a scalar.

    ``to_rows`` lays features out as (C, P, D). Channels are independent problems, taken ``step`` at a time: their
    rows are made, used for value and gradient while they are in the caches, and dropped. (Or channels are the rows
    of a single problem, and ``step`` takes all.)
    """

    @staticmethod
    def forward(
        ctx: Any, preds_S: Tensor, preds_T: Tensor, to_rows: Callable[[Tensor], Tensor], step: int, task: Task
    ) -> Tensor:
        ctx.args = to_rows, step, task
        ctx.save_for_backward(preds_S, preds_T)
        total, ctx.grads = _value_and_grads(preds_S, preds_T, ctx.needs_input_grad[0], *ctx.args)
        return total

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple:
        grads, ctx.grads = ctx.grads, None
        if grads is None:  # a second backward, through a retained graph
            preds_S, preds_T = ctx.saved_tensors
            with torch.autocast(grad.device.type, enabled=False):
                _, grads = _value_and_grads(preds_S, preds_T, True, *ctx.args)
        return grads.mul_(grad), None, None, None, None


def _value_and_grads(
    preds_S: Tensor, preds_T: Tensor, want_grads: bool, to_rows: Callable[[Tensor], Tensor], step: int, task: Task
) -> tuple[Tensor, Tensor | None]:
    total = preds_S.new_zeros(())
    grads = torch.empty_like(preds_S) if want_grads else None
    for start in range(0, preds_S.shape[1], step):
        part = slice(start, start + step)
        student = preds_S[:, part].detach().requires_grad_(want_grads)
        with torch.enable_grad():
            rows = to_rows(student)
        value, terms = alignment_loss(rows.detach(), to_rows(preds_T[:, part]), task)
        total += value
        if grads is not None:
            (grads[:, part],) = torch.autograd.grad(rows, student, alignment_grad(terms))
    return total, grads
