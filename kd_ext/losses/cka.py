r"""Centred kernel alignment from small Gram matrices, value and gradient.

Shapes: C independent problems (channels), P rows (what is compared), D
columns (the features of a row); X, Y are (C, P, D), Gram matrices (C, P, P).

.. math::
    CKA(X, Y) = \frac{\langle K_X, K_Y\rangle_F}
                     {\lVert K_X\rVert_F\,\lVert K_Y\rVert_F},\quad
    K_X = H X X^T H,\quad H = I - \tfrac{1}{P} 1 1^T

The alignment of the transposes needs no D x D matrix, because
:math:`\langle X^TX, Y^TY\rangle_F = \lVert XY^T\rVert_F^2` and
:math:`\lVert X^TX\rVert_F = \lVert XX^T\rVert_F`. So the loss is a function
of P x P products alone, and its gradient is :math:`A X + B Y` with two P x P
matrices A and B, the *slopes*: they are all that the backward needs to keep.

Source: Kornblith et al., Similarity of Neural Network Representations
Revisited, ICML 2019, arXiv 1905.00414.
"""

from typing import Callable, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

EPS = 1e-6


class Task(NamedTuple):
    """What is compared: the weights of both alignments, and centring."""

    rows: float
    columns: float
    center: bool

    def views(self) -> List['Task']:
        """Tasks that need one set of products each.

        Rows and columns share theirs, unless each is centred its own way.
        """
        if self.center and self.rows and self.columns:
            return [self._replace(columns=0.), self._replace(rows=0.)]
        return [self]


class Slopes(NamedTuple):
    """The gradient of a loss is ``x @ X + y @ Y``; (C, P, P) each."""

    x: Tensor
    y: Optional[Tensor]


def _centered(rows, task):
    """Rows without their mean, and the energy that went with it, (C,).

    Columns are compared after each row's mean is taken out. Rows lose one
    mean per problem, which changes nothing but the rounding: H does the rest.
    """
    if not task.center:
        return rows, 0.
    mean = rows.mean(-1 if task.columns else (-2, -1), keepdim=True)
    lost = mean.square().mean((-2, -1)) * rows[0].numel()
    return rows - mean, lost


def _scaled_gram(rows, lost):
    """a^2 X X^T of trace 1, and a of (C, 1, 1).

    a is 0, which switches a problem off, where the root mean square of X is
    below EPS, or is rounding noise beside the mean that was taken out.
    """
    gram = rows @ rows.mT
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    signal = trace > EPS**2 * (rows[0].numel() + lost)
    scale = torch.where(signal, trace, torch.inf).rsqrt()[:, None, None]
    return gram.mul_(scale.square()), scale


def _center_gram(gram):
    """H K H without forming H."""
    mean = gram.mean(-1, keepdim=True)
    return gram - mean - mean.mT + mean.mean(-2, keepdim=True)


def _norm(gram):
    # sqrt has no gradient at 0, where nothing can be learned anyway
    return gram.square().sum((-2, -1)).clamp(min=EPS**2).sqrt()


def _loss_of_products(gram_x, gram_y, cross, task):
    """Weighted sum over problems of 1 - CKA from scaled products."""
    loss = gram_x.new_zeros(())
    if task.columns:
        dot = cross.square().sum((-2, -1))
        loss = task.columns * (1 - dot / (_norm(gram_x) * _norm(gram_y))).sum()
    if task.rows:
        if task.center:
            gram_x, gram_y = _center_gram(gram_x), _center_gram(gram_y)
        dot = (gram_x * gram_y).sum((-2, -1))
        loss = loss + task.rows * (
            1 - dot / (_norm(gram_x) * _norm(gram_y))).sum()
    return loss


def _view_loss(x, y, task, want_slopes):
    """Value of one view and, if wanted, its slopes."""
    (x, lost_x), (y, lost_y) = _centered(x, task), _centered(y, task)
    (gram_x, a), (gram_y, b) = _scaled_gram(x, lost_x), _scaled_gram(y, lost_y)
    products = [gram_x]
    if task.columns:
        products.append((x @ y.mT).mul_(a * b))
    cross = products[-1]
    if not want_slopes:
        return _loss_of_products(gram_x, gram_y, cross, task), None
    for product in products:
        product.requires_grad_()
    with torch.enable_grad():
        loss = _loss_of_products(gram_x, gram_y, cross, task)
        grad, *rest = torch.autograd.grad(loss, products)
    # the scales are constants: an alignment does not depend on them
    slope_y = rest[0] * (a * b) if rest else None
    return loss.detach(), Slopes((grad + grad.mT) * a.square(), slope_y)


def alignment_loss(x: Tensor, y: Tensor, task: Task, want_slopes: bool
                   ) -> Tuple[Tensor, List[Slopes]]:
    """Sum over C problems of w (1 - CKA), and the slopes of each view.

    Args:
        x: Student rows (C, P, D).
        y: Teacher rows (C, P, D).
        task: Weights and centring.
        want_slopes: Work out the gradient as well.

    Returns:
        A scalar and one :class:`Slopes` (or None) per view of ``task``.
    """
    values, slopes = zip(*(_view_loss(x, y, view, want_slopes)
                           for view in task.views()))
    return sum(values), list(slopes)


def alignment_grad(x: Tensor, y: Optional[Tensor], task: Task,
                   slopes: List[Slopes], factor: Tensor) -> Tensor:
    """Gradient of :func:`alignment_loss` in x, from its slopes."""
    grad = None
    for view, slope in zip(task.views(), slopes):
        # centring needs no backward: the slopes take a mean to 0 themselves
        part = (slope.x * factor) @ _centered(x, view)[0]
        if slope.y is not None:
            part.baddbmm_(slope.y * factor, _centered(y, view)[0])
        grad = part if grad is None else grad.add_(part)
    return grad


class AlignmentLoss(torch.autograd.Function):
    """:func:`alignment_loss` of features, a few channels at a time.

    Channels are independent problems or the rows of a single one (``step``
    takes all of them then). The rows of a few are laid out, used while they
    are in the caches, and dropped; the backward lays them out again, which
    is cheaper than memory for all of them.
    """

    @staticmethod
    def forward(ctx, preds_S: Tensor, preds_T: Tensor,
                to_rows: Callable[[Tensor], Tensor], step: int, task: Task):
        total, kept = preds_S.new_zeros(()), []
        for start in range(0, preds_S.shape[1], step):
            part = slice(start, start + step)
            value, slopes = alignment_loss(
                to_rows(preds_S[:, part]), to_rows(preds_T[:, part]), task,
                ctx.needs_input_grad[0])
            total += value
            kept.append(slopes)
        ctx.save_for_backward(preds_S, preds_T)
        ctx.to_rows, ctx.step, ctx.task, ctx.kept = to_rows, step, task, kept
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        preds_S, preds_T = ctx.saved_tensors
        grads = torch.empty_like(preds_S)
        # a backward called under autocast runs under it
        with torch.autocast(preds_S.device.type, enabled=False):
            for index, slopes in enumerate(ctx.kept):
                part = slice(index * ctx.step, (index + 1) * ctx.step)
                grads[:, part] = _features_grad(
                    preds_S[:, part], preds_T[:, part], ctx.to_rows, ctx.task,
                    slopes, grad)
        return grads, None, None, None, None


def _features_grad(preds_S, preds_T, to_rows, task, slopes, factor):
    """Gradient in the features of a few channels."""
    student = preds_S.detach().requires_grad_()
    with torch.enable_grad():
        x = to_rows(student)
    y = to_rows(preds_T) if task.columns else None
    grad_x = alignment_grad(x.detach(), y, task, slopes, factor)
    return torch.autograd.grad(x, student, grad_x)[0]
