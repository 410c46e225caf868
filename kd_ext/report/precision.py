"""AP by class and by size, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZES = ('small', 'medium', 'large')


def precision(truth: dict, results: Sequence[dict]) -> dict[str, Any]:
    """COCO's AP of boxes in points: ``mAP``, ``AP50``, ``AP75``, ``sizes`` and ``classes`` by name.

    None stands for a class or size without objects.

    Args:
        truth: A COCO data set.
        results: COCO results.
    """
    boxes = [
        dict(item, id=number, area=item['bbox'][2] * item['bbox'][3], iscrowd=0)
        for number, item in enumerate(results, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        # loadRes would fail without any detection
        evaluation = COCOeval(_index(truth), _index(dict(truth, annotations=boxes)), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
    table = evaluation.eval['precision'][..., -1]  # IoU thresholds, recalls, classes, sizes
    names = {item['id']: item['name'] for item in truth['categories']}
    return dict(
        mAP=_mean(table[:, :, :, 0]),
        AP50=_mean(table[0, :, :, 0]),
        AP75=_mean(table[5, :, :, 0]),
        sizes={name: _mean(table[:, :, :, index]) for index, name in enumerate(SIZES, 1)},
        classes={names[label]: _mean(table[:, :, index, 0]) for index, label in enumerate(evaluation.params.catIds)},
    )


def _index(content: dict) -> COCO:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return 100 * float(known.mean()) if known.size else None
