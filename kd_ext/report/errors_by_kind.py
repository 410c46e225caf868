"""Where detections went wrong: TIDE's kinds of errors, and the AP50 that each costs.

A detection matches the object of its class with the highest IoU >= 0.5 that no likelier one took. Of the others:

* ``box``: 0.1 <= IoU < 0.5 with an object of its class;
* ``class``: IoU >= 0.5 with an object of another class;
* ``twice``: IoU >= 0.5 with an object of its class that is taken;
* ``background``: IoU <= 0.1 with every object;
* ``both``: the rest, wrong in class and box;

and ``missed`` are objects that no detection takes and no ``box`` or ``class`` error points at. A kind costs what AP50
gains once all its errors are put right: class and box errors become hits where they are the likeliest of a free
object, the others vanish, missed objects no longer count.

Written here because ``tidecv`` (1.0.1 of 2020) is no longer kept. It differs where detections lie in crowd regions
(they are no errors here) and in classes without an object (they do not count here, as in COCO).

Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, arXiv 2008.08115.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask

HIT, FAR, MOST = 0.5, 0.1, 100
KINDS = ('class', 'box', 'both', 'twice', 'background', 'missed')
TP = 'hit'


class Found(NamedTuple):
    """A detection with what became of it."""

    image: Any
    label: int
    score: float
    kind: str
    target: Any = None  # (id, label, taken) of the object that a class or box error points at


def match(truth: dict, results: Sequence[dict]) -> tuple[list[Found], list[dict]]:
    """What became of every detection, and the objects that none took.

    Args:
        truth: A COCO data set.
        results: COCO results; an image's likeliest 100 count.
    """
    objects, detections = defaultdict(list), defaultdict(list)
    for item in truth['annotations']:
        objects[item['image_id']].append(item)
    for item in results:
        detections[item['image_id']].append(item)
    found: list[Found] = []
    free: list[dict] = []
    for image in truth['images']:
        own = sorted(detections[image['id']], key=lambda item: -item['score'])[:MOST]
        whole = [item for item in objects[image['id']] if not item.get('iscrowd')]
        crowds = [item for item in objects[image['id']] if item.get('iscrowd')]
        taken = _match_image(image['id'], own, whole, crowds, found)
        free += [item for item, hit in zip(whole, taken) if not hit]
    return found, free


def _match_image(image: Any, own: list[dict], whole: list[dict], crowds: list[dict], found: list[Found]) -> np.ndarray:
    taken = np.zeros(len(whole), bool)
    if not own:
        return taken
    labels = np.array([item['category_id'] for item in own])
    overlaps = np.zeros((len(own), max(len(whole), 1)))
    same = np.zeros_like(overlaps, bool)
    if whole:
        overlaps = _iou(own, whole, 0)
        same = labels[:, None] == np.array([item['category_id'] for item in whole])
    owner = np.full(len(own), -1)
    for row in range(len(own) if whole else 0):
        open_ious = np.where(same[row] & ~taken, overlaps[row], 0)
        best = int(open_ious.argmax())
        if open_ious[best] >= HIT:
            taken[best], owner[row] = True, best
    ignored = np.zeros(len(own), bool)
    if crowds:
        ignored = ((_iou(own, crowds, 1) > HIT) & (labels[:, None] == [c['category_id'] for c in crowds])).any(1)
    for row, item in enumerate(own):
        kind, target = TP, None
        if owner[row] < 0:
            if ignored[row]:
                continue
            kind, at = _kind(overlaps[row], same[row], taken if whole else np.zeros(1, bool))
            if at is not None:
                target = (whole[at]['id'], whole[at]['category_id'], bool(taken[at]))
        found.append(Found(image, item['category_id'], item['score'], kind, target))
    return taken


def _iou(own: list[dict], other: list[dict], crowd: int) -> np.ndarray:
    return np.asarray(mask.iou([i['bbox'] for i in own], [i['bbox'] for i in other], [crowd] * len(other)))


def _kind(overlaps: np.ndarray, same: np.ndarray, taken: np.ndarray) -> tuple[str, int | None]:
    of_class, other = overlaps * same, overlaps * ~same
    if FAR <= of_class.max() <= HIT:
        return 'box', int(of_class.argmax())
    if other.max() >= HIT:
        return 'class', int(other.argmax())
    if (of_class * taken).max() >= HIT:
        return 'twice', None
    return ('background' if overlaps.max() <= FAR else 'both'), None


def error_costs(truth: dict, results: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Number of errors of each kind, and the points of AP50 that it costs: ``{kind: dict(count=..., cost=...)}``."""
    found, free = match(truth, results)
    objects: dict[int, int] = defaultdict(int)
    for item in truth['annotations']:
        objects[item['category_id']] += not item.get('iscrowd')
    best: dict[Any, Found] = {}  # the likeliest error of each free object
    for one in found:
        if one.target and not one.target[2] and one.score > getattr(best.get(one.target[0]), 'score', -1):
            best[one.target[0]] = one
    missed = [item for item in free if item['id'] not in best]
    points = [(one, one.label, one.kind == TP) for one in found]
    base = _mean_ap(points, objects)
    costs = {}
    for kind in KINDS:
        fixed, left = [], dict(objects)
        for one, label, hit in points:
            if one.kind != kind:
                fixed.append((one, label, hit))
            elif one.target and best.get(one.target[0]) is one:
                fixed.append((one, one.target[1], True))
        for item in missed if kind == 'missed' else ():
            left[item['category_id']] -= 1
        count = len(missed) if kind == 'missed' else sum(one.kind == kind for one in found)
        costs[kind] = dict(count=count, cost=max(_mean_ap(fixed, left) - base, 0.0))
    return costs


def _mean_ap(points: list, objects: dict[int, int]) -> float:
    """AP50 in points over the classes with objects, by COCO's 101 recalls."""
    by_class = defaultdict(list)
    for one, label, hit in points:
        by_class[label].append((one.score, hit))
    values = [_ap(by_class[label], count) for label, count in objects.items() if count]
    return 100 * float(np.mean(values)) if values else 0.0


def _ap(points: list[tuple[float, bool]], objects: int) -> float:
    if not points:
        return 0.0
    hits = np.array([hit for _, hit in sorted(points, key=lambda point: -point[0])], float).cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / objects, np.linspace(0, 1, 101), side='left')
    return float(np.where(at < len(hits), precision[np.minimum(at, len(hits) - 1)], 0).mean())


def image_scores(truth: dict, results: Sequence[dict], threshold: float) -> dict[Any, float]:
    """F1 of each image with objects: its detections of at least ``threshold`` against its objects at IoU 0.5."""
    found, free = match(truth, [item for item in results if item['score'] >= threshold])
    hits = Counter(one.image for one in found if one.kind == TP)
    wrong = Counter(one.image for one in found if one.kind != TP)
    missed = Counter(item['image_id'] for item in free)
    images = {item['image_id'] for item in truth['annotations'] if not item.get('iscrowd')}
    return {i: 2 * hits[i] / max(2 * hits[i] + wrong[i] + missed[i], 1) for i in images}
