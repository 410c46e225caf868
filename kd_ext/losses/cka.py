r"""Centred kernel alignment from small Gram matrices.

Shapes: C independent problems (channels), P rows (what is compared), D
columns (the features of a row); X, Y are (C, P, D), Gram matrices (C, P, P).

.. math::
    CKA(X, Y) = \frac{\langle K_X, K_Y\rangle_F}
                     {\lVert K_X\rVert_F\,\lVert K_Y\rVert_F},\quad
    K_X = H X X^T H,\quad H = I - \tfrac{1}{P} 1 1^T

The alignment of the transposes needs no D x D matrix, because
:math:`\langle X^TX, Y^TY\rangle_F = \lVert XY^T\rVert_F^2` and
:math:`\lVert X^TX\rVert_F = \lVert XX^T\rVert_F`.

Source: Kornblith et al., Similarity of Neural Network Representations
Revisited, ICML 2019, arXiv 1905.00414.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

EPS = 1e-6


class _SelfGram(torch.autograd.Function):
    """X X^T with one matrix product in the backward instead of two."""

    @staticmethod
    def forward(ctx, rows):
        ctx.save_for_backward(rows)
        return rows @ rows.mT

    @staticmethod
    def backward(ctx, grad):
        rows, = ctx.saved_tensors
        return (grad + grad.mT) @ rows


def scaled_gram(rows: Tensor) -> Tuple[Tensor, Tensor]:
    """(C, P, D) -> X X^T / s of (C, P, P), and s of (C,): the trace of X X^T.

    The scale is held constant in the backward: an alignment does not depend
    on it, so the gradient is exact. It keeps fp32 far from its limits for
    features of any magnitude; EPS is added to the root mean square.
    """
    if rows.requires_grad:
        gram = _SelfGram.apply(rows)
    else:
        gram = rows @ rows.mT
    trace = gram.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    trace = trace + rows[0].numel() * EPS**2
    return gram / trace[:, None, None], trace


def center_gram(gram: Tensor) -> Tensor:
    """H K H without forming H."""
    mean = gram.mean(-1, keepdim=True)
    return gram - mean - mean.mT + mean.mean(-2, keepdim=True)


def _norm(gram):
    # sqrt has no gradient at 0, where nothing can be learned anyway
    return gram.square().sum((-2, -1)).clamp(min=EPS**2).sqrt()


def _cosine(dot, gram_x, gram_y):
    return dot / (_norm(gram_x) * _norm(gram_y)).clamp(min=EPS)


def row_alignment(gram_x: Tensor, gram_y: Tensor, center: bool) -> Tensor:
    """CKA between the rows of X and of Y from their scaled Grams: (C,)."""
    if center:
        gram_x, gram_y = center_gram(gram_x), center_gram(gram_y)
    return _cosine((gram_x * gram_y).sum((-2, -1)), gram_x, gram_y)


def column_alignment(x: Tensor, y: Tensor, center: bool) -> Tensor:
    """CKA between the columns of X and of Y, (C, P, D) -> (C,).

    Only P x P matrices are formed; with ``center`` each row's mean over the
    D columns is taken out first.
    """
    if center:
        x = x - x.mean(-1, keepdim=True)
        y = y - y.mean(-1, keepdim=True)
    (gram_x, trace_x), (gram_y, trace_y) = scaled_gram(x), scaled_gram(y)
    dot = (x @ y.mT).square().sum((-2, -1)) / (trace_x * trace_y)
    return _cosine(dot, gram_x, gram_y)


def alignments(x: Tensor, y: Tensor, rows: bool, columns: bool,
               center: bool) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Both CKAs of (C, P, D) pairs, each (C,), or None where not asked for.

    Without centring the two share their Gram matrices.
    """
    if rows and columns and not center:
        (gram_x, trace_x), (gram_y, trace_y) = scaled_gram(x), scaled_gram(y)
        dot = (x @ y.mT).square().sum((-2, -1)) / (trace_x * trace_y)
        return (row_alignment(gram_x, gram_y, False),
                _cosine(dot, gram_x, gram_y))
    row = column = None
    if rows:
        row = row_alignment(scaled_gram(x)[0], scaled_gram(y)[0], center)
    if columns:
        column = column_alignment(x, y, center)
    return row, column
