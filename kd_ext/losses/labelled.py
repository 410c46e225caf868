"""Labelled embeddings: what ND, NCKD and the prototype classifier share.

Shapes: N regions, D embedding width, R rows of class means; label k is row k. A label without a row, or whose row
is zero (a class never seen), is left out.
"""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from kd_ext.errors import type_error, value_error
from kd_ext.losses.checks import check_tensor
from kd_ext.losses.precision import full_precision

EPS = 1e-6
NO_LABELS = (torch.bool, torch.complex64, torch.complex128)


def check_labelled(preds_S: Tensor, labels: Tensor, class_means: Tensor) -> None:
    """Embeddings (N, D), a label for each, and class means of width D.

    The values of labels are not checked, as that would wait for the GPU. Labels without a class mean are left out.
    """
    check_tensor('preds_S', preds_S, (2,), '(N, D)')
    check_tensor('class_means', class_means, (2,), '(R, D)')
    if not isinstance(labels, Tensor):
        raise type_error('labels', 'a tensor (N,)', type(labels).__name__)
    if labels.dtype in NO_LABELS or labels.is_floating_point() or labels.shape != preds_S.shape[:1]:
        rule = f'{len(preds_S)} whole numbers, one for each row of preds_S'
        raise value_error('labels', rule, f'{labels.dtype} of shape {tuple(labels.shape)}')
    if not len(class_means) or class_means.shape[1] != preds_S.shape[1]:
        raise value_error(
            'class_means',
            f'at least one row of width {preds_S.shape[1]}, as preds_S has',
            f'shape {tuple(class_means.shape)}',
            'kd_ext.DetectionDistill adds a projector where teacher and student differ.',
        )


def known_rows(labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Which labels (N,) are a known class, and all labels clamped to 0 .. R-1.

    ``known`` (R,) says which classes count.
    """
    index = labels.clamp(0, len(known) - 1).long()
    return (index == labels) & known[index], index


def inverse(norms: Tensor, floor: float | Tensor = EPS) -> Tensor:
    """1 / norms, and 0 without a gradient where a norm is at most ``floor``."""
    return torch.where(norms > floor, 1 / norms.clamp(min=EPS), 0.0)


def directions(rows: Tensor, floor: float | Tensor = EPS) -> Tensor:
    """Rows of length 1. A row no longer than ``floor`` has no direction: it becomes zero, without a gradient."""
    return rows * inverse(torch.linalg.vector_norm(rows, dim=-1, keepdim=True), floor)


def known_classes(class_means: Tensor) -> Tensor:
    """Which classes (R,) have a mean."""
    return torch.linalg.vector_norm(class_means, dim=1) > EPS


def class_directions(class_means: Tensor, known: Tensor, center: bool) -> tuple[Tensor, Tensor]:
    """Unit rows (R, D) along the means of the known classes, zero for the others, and the centre (1, D) taken out.

    The centre is the mean over the known classes, or 0 without ``center``.
    """
    centre = (class_means * known[:, None]).sum(0, keepdim=True) / known.sum().clamp(min=1) * float(center)
    scale = torch.linalg.vector_norm(class_means, dim=1, keepdim=True)
    # of a class at the centre only rounding errors are left, which are no direction
    floor = EPS * scale.detach().clamp(min=1)
    return directions((class_means - centre) * known[:, None], floor), centre


def _class_index(labels: Tensor, rows: int) -> Tensor:
    """Labels (N,), with ``rows`` for all that are no class."""
    return torch.where((labels >= 0) & (labels < rows), labels, rows).long()


def class_counts(labels: Tensor, rows: int) -> Tensor:
    """Number of regions of each class (rows,); other labels do not count."""
    counts = torch.zeros(rows + 1, device=labels.device)
    return counts.index_add_(0, _class_index(labels, rows), torch.ones_like(labels, dtype=counts.dtype))[:-1]


@full_precision
def class_sums(preds_S: Tensor, labels: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Sum of the embeddings (rows, D) and their number (rows,) by class."""
    sums = preds_S.new_zeros(rows + 1, preds_S.shape[1]).index_add(0, _class_index(labels, rows), preds_S)
    return sums[:-1], class_counts(labels, rows).to(preds_S.dtype)


def batch_means(preds_S: Tensor, labels: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Class means (rows, D) and counts (rows,) of all processes' regions.

    The values are equal on every process. The gradient goes to this process's regions, times the number of
    processes: DDP averages gradients, so the parameters get what one process with all regions would give them.
    """
    sums, counts = class_sums(preds_S, labels, rows)
    packed = torch.cat([sums.detach(), counts[:, None]], 1)
    all_reduce(packed)
    counts = packed[:, -1]
    sums = packed[:, :-1] + get_world_size() * (sums - sums.detach())
    return sums / counts.clamp(min=1)[:, None], counts
