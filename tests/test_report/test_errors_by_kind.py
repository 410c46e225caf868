"""Kinds of errors, by hand and against tidecv."""

import numpy as np
import pytest

from kd_ext.report.errors_by_kind import KINDS, error_costs, image_scores, match


def data(objects, classes=2):
    """A COCO data set: objects are (image, class, box) or (image, class, box, crowd)."""
    annotations = [
        dict(id=number, image_id=one[0], category_id=one[1], bbox=one[2], area=1.0, iscrowd=int(len(one) > 3))
        for number, one in enumerate(objects, 1)
    ]
    return dict(
        images=[dict(id=number) for number in (1, 2)],
        categories=[dict(id=number, name=str(number)) for number in range(1, classes + 1)],
        annotations=annotations,
    )


def results(*found):
    return [dict(image_id=image, category_id=label, bbox=box, score=score) for image, label, box, score in found]


BOX, NEAR, FAR = [0, 0, 10, 10], [0, 5, 10, 10], [50, 50, 10, 10]  # IoU of BOX and NEAR: 50 / 150


@pytest.mark.parametrize(
    ('label', 'box', 'kind'),
    [(1, BOX, 'hit'), (2, BOX, 'class'), (1, NEAR, 'box'), (2, NEAR, 'both'), (1, FAR, 'background')],
)
def test_kind_of_a_detection(label, box, kind):
    found, free = match(data([(1, 1, BOX)]), results((1, label, box, 0.9)))
    assert [one.kind for one in found] == [kind]
    assert len(free) == (kind != 'hit')


def test_twice_and_missed():
    truth = data([(1, 1, BOX), (2, 1, BOX)])
    costs = error_costs(truth, results((1, 1, BOX, 0.9), (1, 1, BOX, 0.8)))
    assert {kind: costs[kind]['count'] for kind in KINDS} == dict.fromkeys(KINDS, 0) | dict(twice=1, missed=1)
    # one of two objects found: recalls 0 to 0.5 are 51 of 101; without the missed one AP50 is 1
    assert costs['missed']['cost'] == pytest.approx(100 * (1 - 51 / 101))
    assert costs['twice']['cost'] == 0


def test_a_wrong_class_put_right():
    costs = error_costs(data([(1, 1, BOX), (2, 2, BOX)]), results((1, 2, BOX, 0.9), (2, 2, BOX, 0.8)))
    assert costs['class']['count'] == 1 and costs['missed']['count'] == 0
    # AP50 of class 1 is 0, of class 2 is 1/2, and both are 1 afterwards
    assert costs['class']['cost'] == pytest.approx(75)


def test_crowds_are_no_errors():
    truth = data([(1, 1, BOX, 'crowd'), (2, 1, BOX)])
    found, free = match(truth, results((1, 1, BOX, 0.9), (2, 1, BOX, 0.9)))
    assert [one.kind for one in found] == ['hit'] and not free


def test_without_detections_or_objects():
    costs = error_costs(data([(1, 1, BOX)]), [])
    assert costs['missed'] == dict(count=1, cost=0.0)  # no object is left to find
    assert error_costs(data([]), results((1, 1, BOX, 0.5)))['background']['count'] == 1


def test_image_scores_by_hand():
    truth = data([(1, 1, BOX), (1, 2, FAR), (2, 1, BOX)])
    found = results((1, 1, BOX, 0.9), (1, 1, FAR, 0.9), (2, 1, BOX, 0.2))
    # image 1: one hit, one wrong, one missed: 2 / (2 + 1 + 1); image 2: its hit is below the threshold
    assert image_scores(truth, found, 0.3) == {1: 0.5, 2: 0.0}


def random_scene(seed):
    """Objects in 40 images, with shifted, confused, repeated and random detections."""
    rng = np.random.default_rng(seed)
    annotations, found = [], []
    for image in range(1, 41):
        for _ in range(rng.integers(1, 6)):
            box = [*rng.uniform(0, 80, 2), *rng.uniform(10, 40, 2)]
            label = int(rng.integers(1, 5))
            annotations.append((image, label, box))
            for _ in range(rng.integers(0, 4)):
                shifted = np.array(box) + rng.normal(0, 5, 4)
                shifted[2:] = np.maximum(shifted[2:], 3)
                other = label if rng.random() < 0.7 else int(rng.integers(1, 5))
                found.append((image, other, shifted.tolist(), float(rng.random())))
        for _ in range(2):
            box = [*rng.uniform(0, 80, 2), *rng.uniform(10, 40, 2)]
            found.append((image, int(rng.integers(1, 5)), box, float(rng.random())))
    truth = data([(image, label, [float(one) for one in box]) for image, label, box in annotations], 4)
    truth['images'] = [dict(id=number, width=128, height=128) for number in range(1, 41)]
    return truth, results(*found)


# counts and costs by tidecv 1.0.1, TIDE().evaluate(..., mode=TIDE.BOX), of random_scene(seed)
BY_TIDECV = {
    0: {
        'class': (19, 3.065361),
        'box': (86, 23.467756),
        'both': (48, 1.794345),
        'twice': (18, 0.343813),
        'background': (59, 3.755357),
        'missed': (35, 4.654817),
    },
    1: {
        'class': (26, 6.139527),
        'box': (80, 20.666166),
        'both': (31, 1.402377),
        'twice': (15, 0.136093),
        'background': (62, 2.901027),
        'missed': (30, 3.672390),
    },
}


@pytest.mark.parametrize('seed', BY_TIDECV)
def test_agrees_with_tidecv(seed):
    costs = error_costs(*random_scene(seed))
    for kind, (count, cost) in BY_TIDECV[seed].items():
        assert costs[kind]['count'] == count
        assert costs[kind]['cost'] == pytest.approx(cost, abs=1e-5)
