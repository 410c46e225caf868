"""The picture: which scenes it shows, what counts as found, the file."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from pycocotools.coco import COCO

from demo import picture
from demo.picture import OBJECTS, PICTURED, Boxes, choose, draw_grid, ground_truth, hits
from demo.scenes import CLASSES


def coco(tmp_path, counts):
    """A file of scenes with so many objects each."""
    images = [dict(id=index, file_name=f'{index}.jpg', height=64, width=64) for index in range(len(counts))]
    objects = [index for index, count in enumerate(counts) for _ in range(count)]
    annotations = [
        dict(id=number + 1, image_id=index, category_id=2, bbox=[1, 2, 10, 20], area=200, iscrowd=0)
        for number, index in enumerate(objects)
    ]
    content = dict(images=images, annotations=annotations, categories=[dict(id=2, name='square')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    return COCO(str(tmp_path / 'a.json'))


def test_the_first_scenes_with_enough_objects_are_chosen(tmp_path):
    counts = [OBJECTS - 1, OBJECTS, 1, *[OBJECTS + 1] * PICTURED]
    assert choose(coco(tmp_path, counts)) == [1, 3, 4, 5, 6][:PICTURED]
    assert str(OBJECTS) in picture.RULE and str(PICTURED) in picture.RULE


def test_ground_truth(tmp_path):
    found = ground_truth(coco(tmp_path, [2]), 0)
    assert found.boxes.tolist() == [[1, 2, 11, 22]] * 2 and found.labels.tolist() == [1, 1] and found.scores is None


# two objects; by hand: (0, 0, 10, 10) meets (0, 0, 10, 8) with 80 / 100, (5, 0, 15, 10) with 50 / 150
TRUTH = Boxes(np.array([[0, 0, 10, 10], [30, 30, 40, 40]], float), np.array([0, 1]))


@pytest.mark.parametrize(
    'boxes, labels, scores, expected',
    [
        ([[0, 0, 10, 8]], [0], [0.9], [True]),
        ([[0, 0, 10, 8]], [1], [0.9], [False]),  # the wrong class
        ([[5, 0, 15, 10]], [0], [0.9], [False]),  # the wrong place
        ([[0, 0, 10, 8], [0, 0, 10, 10]], [0, 0], [0.5, 0.6], [False, True]),  # found already, by the likelier
        ([[30, 30, 40, 40], [0, 0, 10, 10]], [1, 0], [0.3, 0.9], [True, True]),
        (np.zeros((0, 4)), [], [], []),
    ],
)
def test_hits(boxes, labels, scores, expected):
    found = Boxes(np.array(boxes, float), np.array(labels, int), np.array(scores))
    assert hits(found, TRUTH).tolist() == expected


def test_nothing_to_find():
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0, int))
    assert hits(Boxes(np.ones((1, 4)), np.array([0]), np.array([0.5])), nothing).tolist() == [False]


def test_picture_of_ground_truth_and_detections(shapes, tmp_path):
    labelled = COCO(str(shapes / 'annotations/instances_val.json'))
    images = labelled.loadImgs(labelled.getImgIds())[:2]
    truth = [ground_truth(labelled, image['id']) for image in images]
    assert all(len(one.boxes) == len(one.labels) > 0 for one in truth)
    found = [Boxes(np.array([[1.0, 2.0, 20.0, 30.0]]), np.array([1]), np.array([0.5])) for _ in images]
    out = tmp_path / 'grid.png'
    paths = [shapes / 'VOC2007/JPEGImages' / image['file_name'] for image in images]
    draw_grid(paths, truth, dict(student=found), CLASSES, out)
    height, width, _ = plt.imread(out).shape
    assert height > 300 and width > 300
