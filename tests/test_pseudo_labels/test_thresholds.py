"""Thresholds by best F1, against a search over all of them."""

import numpy as np
import pytest
from torch.testing import assert_close

from kd_ext.pseudo_labels.thresholds import (
    DEFAULT,
    GIVEN,
    OWN,
    POOLED,
    UNKNOWN,
    Truth,
    choose_thresholds,
    read_thresholds,
)


def found(*rows):
    """Detections of an image from (box, label, score)."""
    return dict(boxes=[row[0] for row in rows], labels=[row[1] for row in rows], scores=[row[2] for row in rows])


def truth(*rows):
    """Objects of an image from (box, label, ignored)."""
    return Truth(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], int),
        np.array([row[2] for row in rows], bool),
    )


def place(number):
    return [20.0 * number, 0.0, 20.0 * number + 10, 10.0]


def test_by_hand():
    # five objects; at 0.6: TP 3, FP 0, FN 2, F1 = 6 / 8; at 0.3: TP 4, FP 1, FN 1, F1 = 8 / 10; below: TP 4, FP 2
    objects = truth(*((place(number), 0, False) for number in range(5)))
    detections = found(
        (place(0), 0, 0.9),
        (place(1), 0, 0.8),
        (place(2), 0, 0.6),
        (place(9), 0, 0.5),  # nothing is there
        (place(3), 0, 0.3),
        (place(0), 0, 0.2),  # found already
    )
    chosen = choose_thresholds(['a'], [detections], [objects])['a']
    assert chosen.score == 0.3 and chosen.source == OWN
    assert_close(chosen.f1, 0.8)


def test_what_an_evaluation_ignores_counts_neither_way():
    rows = [(place(number), 0, False) for number in range(5)]
    detections = found(*((place(number), 0, 0.5) for number in range(6)))
    plain = choose_thresholds(['a'], [detections], [truth(*rows)])['a']
    ignoring = choose_thresholds(['a'], [detections], [truth(*rows, (place(5), 0, True))])['a']
    assert_close(plain.f1, 10 / 11)
    assert ignoring.f1 == 1


def brute_force(label, detections, truths):
    """Best F1 over all scores as thresholds, with a greedy assignment of its own."""
    best = (0.0, None)
    for threshold in sorted({score for one in detections for score in one['scores']}):
        hits = wrong = count = 0
        for one, objects in zip(detections, truths):
            boxes = [box for box, kind in zip(objects.boxes, objects.labels) if kind == label]
            count += len(boxes)
            free = [True] * len(boxes)
            rows = sorted(zip(one['scores'], one['boxes'], one['labels']), key=lambda row: -row[0])
            for score, box, kind in rows:
                if kind != label or score < threshold:
                    continue
                overlaps = [overlap(box, other) for other in boxes]
                at = int(np.argmax(overlaps)) if overlaps else 0
                if overlaps and overlaps[at] >= 0.5 and free[at]:
                    free[at] = False
                    hits += 1
                else:
                    wrong += 1
        value = 2 * hits / (2 * hits + wrong + count - hits) if hits else 0.0
        if value >= best[0]:  # the highest of equal ones
            best = (value, threshold)
    return best


def overlap(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


@pytest.mark.parametrize('seed', range(5))
def test_against_a_search_over_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    detections, truths = [], []
    for _ in range(6):
        corners = rng.uniform(0, 60, (8, 2))
        boxes = np.hstack([corners, corners + rng.uniform(10, 30, (8, 2))]).astype(np.float32)
        labels = rng.integers(0, 2, 8)
        truths.append(Truth(boxes, labels, np.zeros(8, bool)))
        moved = np.vstack([boxes + rng.normal(0, 2, boxes.shape), boxes[:4] + 25])
        kinds = np.append(np.where(rng.random(8) < 0.8, labels, 1 - labels), [0, 1, 0, 1])
        scores = rng.integers(1, 20, 12) / 20  # equal ones among them
        detections.append(dict(boxes=moved.tolist(), labels=kinds.tolist(), scores=scores.tolist()))
    chosen = choose_thresholds(['a', 'b'], detections, truths)
    for label, name in enumerate('ab'):
        value, threshold = brute_force(label, detections, truths)
        assert_close(chosen[name].f1, value)
        assert chosen[name].score == threshold


def test_a_rare_class_takes_the_threshold_of_all():
    objects = truth(*((place(number), 0, False) for number in range(5)), (place(7), 1, False))
    detections = found(*((place(number), 0, 0.7) for number in range(5)), (place(7), 1, 0.4))
    chosen = choose_thresholds(['a', 'b', 'c'], [detections], [objects])
    assert (chosen['a'].score, chosen['a'].source) == (0.7, OWN)
    assert (chosen['b'].score, chosen['b'].source) == (0.4, POOLED) and chosen['b'].f1 == 1
    assert chosen['c'].f1 is None and chosen['c'].source == POOLED


def test_given_and_unknown_thresholds():
    assert choose_thresholds(['a'])['a'] == (DEFAULT, None, UNKNOWN)
    chosen = choose_thresholds(['a', 'b'], given={'': 0.3, 'b': 0.9})
    assert chosen == dict(a=(0.3, None, GIVEN), b=(0.9, None, GIVEN))


def test_read_thresholds():
    assert read_thresholds(['0.3', 'ring=1', 'star=0'], ['ring', 'star']) == {'': 0.3, 'ring': 1.0, 'star': 0.0}


@pytest.mark.parametrize('text', ['high', '1.5', '-0.1', 'nan', 'ring=', 'rong=0.5'])
def test_wrong_thresholds(text):
    with pytest.raises(ValueError, match='--threshold to be'):
        read_thresholds([text], ['ring', 'star'])
