"""Chooses the score above which a detection becomes a label, class by class, on labelled images.

For the detections of a class with a score of at least t, F1(t) = 2 TP / (2 TP + FP + FN), where a detection is
true if it overlaps an object that no better one has taken (IoU >= 0.5). The threshold is the t of the largest F1;
of several, the highest.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np

from kd_ext.errors import is_number, near_matches, value_error

LEAST = 5  # objects of a class, from which its own threshold is chosen
DEFAULT = 0.5  # where nothing is known
GIVEN, OWN, POOLED, UNKNOWN = 'given', 'best F1', 'best F1 of all classes', 'default'


class Threshold(NamedTuple):
    """The threshold of a class, its F1 on the labelled images (None if it is not known), and where it comes from."""

    score: float
    f1: float | None
    source: str


class Truth(NamedTuple):
    """Objects of an image: boxes (N, 4), labels (N,), and which of them an evaluation ignores (N,)."""

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


def choose_thresholds(
    classes: Sequence[str],
    found: Sequence[dict[str, Any]] = (),
    truths: Sequence[Truth] = (),
    given: dict[str, float] | None = None,
) -> dict[str, Threshold]:
    """The threshold of each class.

    A class with fewer than ``LEAST`` labelled objects, or without a true detection, takes the threshold that is
    best for all classes together.

    Args:
        classes: Names.
        found: Detections of the labelled images, with labels that index ``classes``.
        truths: The objects of the same images.
        given: Thresholds by name that need no choice; ``''`` is for all classes not named.
    """
    given = given or {}
    curves = [_outcomes(index, found, truths) for index in range(len(classes))]
    scores, true = (np.concatenate([one[part] for one in curves]) for part in (0, 1))
    pooled = _best(scores, true, sum(one[2] for one in curves))
    common = (DEFAULT, UNKNOWN) if pooled is None else (pooled[0], POOLED)
    chosen = {}
    for name, (scores, true, count) in zip(classes, curves):
        best = _best(scores, true, count)
        value = given.get(name, given.get(''))
        if value is not None:
            chosen[name] = Threshold(value, _f1_at(value, scores, true, count), GIVEN)
        elif best is not None and count >= LEAST:
            chosen[name] = Threshold(*best, OWN)
        else:
            chosen[name] = Threshold(common[0], _f1_at(common[0], scores, true, count), common[1])
    return chosen


def _outcomes(label: int, found: Sequence[dict], truths: Sequence[Truth]) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores of a class's detections, best first; which are true; and the number of objects. Ignored ones count
    neither way."""
    from mmdet.evaluation.functional.mean_ap import tpfp_default

    scores, true, count = [np.zeros(0)], [np.zeros(0, bool)], 0
    for one, truth in zip(found, truths):
        here = np.array(one['labels'], int) == label
        boxes = np.array(one['boxes'], np.float32).reshape(-1, 4)[here]
        own = np.array(one['scores'], np.float32)[here]
        wanted, ignored = (truth.boxes[(truth.labels == label) & kind] for kind in (~truth.ignored, truth.ignored))
        count += len(wanted)
        if len(boxes):
            tp, fp = tpfp_default(np.hstack([boxes, own[:, None]]), wanted, ignored)
            counted = (tp[0] + fp[0]) > 0
            scores.append(np.array(one['scores'])[here][counted])
            true.append(tp[0][counted] > 0)
    joined, flags = np.concatenate(scores), np.concatenate(true)
    return joined, flags, count


def _best(scores: np.ndarray, true: np.ndarray, count: int) -> tuple[float, float] | None:
    """Threshold and F1; None without a true detection."""
    if not true.any():
        return None
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + count)
    f1[:-1][scores[:-1] == scores[1:]] = -1  # a threshold takes all detections of its score
    place = int(f1.argmax())
    return float(scores[place]), float(f1[place])


def _f1_at(value: float, scores: np.ndarray, true: np.ndarray, count: int) -> float | None:
    kept = scores >= value
    total = int(kept.sum()) + count
    return 2 * float(true[kept].sum()) / total if count else None


def read_thresholds(texts: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
    """Reads ``0.4`` (of all classes) and ``name=0.4``; raises a ``ValueError`` if one is neither."""
    given = {}
    for text in texts:
        name, _, number = text.rpartition('=')
        if name and name not in classes:
            raise value_error('--threshold', 'CLASS=SCORE of a known class', repr(text), near_matches(name, classes))
        try:
            value = float(number)
        except ValueError:
            value = float('nan')
        if not is_number(value) or not 0 <= value <= 1:
            raise value_error('--threshold', 'a score from 0 to 1, or CLASS=SCORE', repr(text))
        given[name] = value
    return given
