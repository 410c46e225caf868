"""Non-maximum suppression with the signatures of ``mmcv._ext``.

N boxes (x1, y1, x2, y2) in pixels, one score each. ``offset`` (0 or 1) is added to widths and heights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 512  # boxes whose overlaps with all others are held at a time


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that remain, by falling score.

    A box is removed if its IoU with a remaining box of a higher score is above ``iou_threshold``.
    """
    order = scores.sort(descending=True)[1]
    ranked = boxes.detach()[order].float()
    kept = np.ones(len(ranked), dtype=bool)
    for start in range(0, len(ranked), BLOCK):
        rows = start + np.flatnonzero(kept[start : start + BLOCK])
        over = (_iou(ranked[rows], ranked[start:], offset) > iou_threshold).cpu().numpy()
        for row, covered in zip(rows, over):
            if kept[row]:
                kept[row + 1 :] &= ~covered[row + 1 - start :]
    return order[torch.from_numpy(kept).to(order.device)]


def _iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """(N, 4), (M, 4) -> (N, M), NaN for two boxes without area."""
    a, b = a[:, None], b[None]
    width, height = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]) + offset).unbind(-1)
    overlap = width.clamp(min=0) * height.clamp(min=0)
    return overlap / (_area(a, offset) + _area(b, offset) - overlap)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lowers the scores of boxes that overlap a better one, and writes boxes with scores to ``dets`` (N, 5).

    The factor is 0 (``method`` 0) or 1 - IoU (1) for an IoU from ``iou_threshold`` on, or exp(-IoU^2 / ``sigma``)
    (2). Boxes that fall below ``min_score`` are removed.

    Returns:
        Indices of the boxes that remain, in the order of the first rows of ``dets``.
    """
    table = torch.cat([boxes.detach().float(), scores.detach().float()[:, None]], 1)
    order, first = torch.arange(len(table)), 0
    while first < len(table):
        values = table[first:, 4].numpy()
        # a score that is no number is above none and below none: it is chosen where it stands first
        best = first + (0 if np.isnan(values[0]) else int(np.nanargmax(values)))
        for held in (table, order):
            held[[first, best]] = held[[best, first]]
        rest = table[first + 1 :]
        iou = _iou(table[first : first + 1, :4], rest[:, :4], offset)[0]
        if method == 2:
            rest[:, 4] *= torch.exp(-(iou * iou) / sigma)
        else:
            rest[:, 4] *= torch.where(iou >= iou_threshold, 1 - iou if method == 1 else 0.0, 1.0)
        removed, first = rest[:, 4] < min_score, first + 1
        table, order = (_close_gaps(held, removed, first) for held in (table, order))
    dets[: len(table)] = table.to(dets)
    return order


def _close_gaps(held: Tensor, removed: Tensor, first: int) -> Tensor:
    """Removes rows from ``first`` on as the compiled loop does: each gap takes the last row that remains.

    The order matters where scores are equal.
    """
    if not removed.any():
        return held
    end = len(removed) - int(removed.sum())
    gaps = removed[:end].nonzero()[:, 0] + first
    fillers = (~removed[end:]).nonzero()[:, 0].flip(0) + first + end
    held[gaps] = held[fillers]
    return held[: first + end]
