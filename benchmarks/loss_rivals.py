"""The plain ways to compute the same losses, for comparison only.

Each gives the numbers of our own loss (there is a test) by the shortest program: a Python loop over channels or
regions, matrices formed whole.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _cka(x, y):
    gram_x, gram_y = x @ x.mT, y @ y.mT
    return (gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm())


def loop_rcka_loss(preds_S: Tensor, preds_T: Tensor, patch: int, inter_weight: float) -> Tensor:
    """RCKA without centring, one channel after the other."""
    height, width = (-(-side // patch) * patch for side in preds_S.shape[2:])
    preds_S, preds_T = (
        F.interpolate(maps, (height, width), mode='bilinear', align_corners=False) for maps in (preds_S, preds_T)
    )
    total = 0.0
    for channel in range(preds_S.shape[1]):
        x, y = (
            maps[:, channel]
            .unfold(1, patch, patch)
            .unfold(2, patch, patch)
            .permute(1, 2, 0, 3, 4)
            .flatten(0, 1)
            .flatten(1)
            for maps in (preds_S, preds_T)
        )
        total = total + 1 - _cka(x, y)
        if inter_weight:
            total = total + inter_weight * (1 - _cka(x.mT, y.mT))
    return total / preds_S.shape[1]


def _matrices(stages):
    for low, high in zip(stages, stages[1:]):
        pooled = F.adaptive_avg_pool2d(low, high.shape[2:]).flatten(2)
        high = high.flatten(2)
        yield pooled @ high.mT / high.shape[-1]


def _power_sigma(matrix, steps=10):
    with torch.no_grad():
        u = matrix.new_ones(len(matrix), 1, matrix.shape[1])
        for _ in range(steps):
            v = F.normalize(u @ matrix, dim=-1)
            u = F.normalize(v @ matrix.mT, dim=-1)
    return (u @ matrix @ v.mT)[:, 0, 0]


def _svd_sigma(matrix):
    return torch.linalg.matrix_norm(matrix, ord=2)


def _lipschitz(preds_S, preds_T, sigma):
    with torch.no_grad():
        targets = [sigma(matrix) for matrix in _matrices(preds_T)]
    total, pairs = 0.0, len(targets)
    for k, matrix in enumerate(_matrices(preds_S)):
        error = sigma(matrix) - targets[k]
        total = total + 2.0 ** (k - pairs) * error.square().mean()
    return total


def formed_lipschitz_loss(preds_S, preds_T) -> Tensor:
    """Lipschitz loss from formed matrices, 10 plain power iterations."""
    return _lipschitz(preds_S, preds_T, _power_sigma)


def svd_lipschitz_loss(preds_S, preds_T) -> Tensor:
    """Lipschitz loss from formed matrices and ``torch.linalg``."""
    return _lipschitz(preds_S, preds_T, _svd_sigma)


def loop_nd_loss(preds_S, preds_T, labels, class_means) -> Tensor:
    """ND loss, one region after the other."""
    total = 0.0
    for s, t, label in zip(preds_S, preds_T, labels.tolist()):
        mean = class_means[label]
        total = total + 1 - s @ (mean / mean.norm()) / max(s.norm(), t.norm())
    return total / len(preds_S)
