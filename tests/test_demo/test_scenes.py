"""The generated data set: from a seed, in both formats, told apart."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from demo.scenes import CLASSES, MIN_VISIBLE, render_scene
from tests.helpers.data_sets import ROOT


def scene(seed):
    return render_scene(np.random.default_rng(seed), (96, 128))


def test_seed_makes_the_scene():
    one, two, other = scene(3), scene(3), scene(4)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.masks, two.masks)
    assert not np.array_equal(one.image, other.image)


def test_boxes_enclose_visible_masks():
    for seed in range(20):
        drawn = scene(seed)
        assert len(drawn.labels) >= 1
        assert drawn.masks.sum(0).max() <= 1  # no pixel belongs to two
        for box, mask in zip(drawn.boxes, drawn.masks):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_every_class_appears_occluded_and_small():
    scenes = [scene(seed) for seed in range(120)]
    labels = np.concatenate([s.labels for s in scenes])
    assert set(labels) == set(range(len(CLASSES)))
    widths = np.concatenate([s.boxes[:, 2] - s.boxes[:, 0] for s in scenes])
    assert widths.min() < 16 and widths.max() > 40
    assert 0 < MIN_VISIBLE < 1


def test_formats_agree(shapes):
    coco = json.loads((shapes / 'annotations/instances_train.json').read_text())
    assert [c['name'] for c in coco['categories']] == list(CLASSES)
    from pycocotools import mask as mask_utils

    by_image = {image['id']: image for image in coco['images']}
    count = 0
    for name in (shapes / 'VOC2007/ImageSets/Main/train.txt').read_text().split():
        xml = ElementTree.parse(shapes / f'VOC2007/Annotations/{name}.xml')
        count += len(xml.findall('object'))
    assert count == len(coco['annotations'])
    for item in coco['annotations']:
        area = int(mask_utils.area(item['segmentation']))
        assert area == item['area'] > 0
        x, y, w, h = item['bbox']
        assert mask_utils.toBbox(item['segmentation']).tolist() == [x, y, w, h]
        assert x + w <= by_image[item['image_id']]['width']


def test_both_dataset_classes_read_it(shapes):
    from mmdet.registry import DATASETS
    from mmengine.registry import DefaultScope

    meta = dict(classes=CLASSES)
    with DefaultScope.overwrite_default_scope('mmdet'):
        coco = DATASETS.build(
            dict(
                type='CocoDataset',
                data_root=str(shapes),
                metainfo=meta,
                ann_file='annotations/instances_val.json',
                data_prefix=dict(img='VOC2007/JPEGImages/'),
                pipeline=[],
            )
        )
        voc = DATASETS.build(
            dict(
                type='VOCDataset',
                data_root=str(shapes),
                metainfo=meta,
                ann_file='VOC2007/ImageSets/Main/val.txt',
                data_prefix=dict(sub_data_root='VOC2007/'),
                pipeline=[],
            )
        )
    assert len(coco) == len(voc) == 4
    for one, two in zip(coco, voc):
        boxes = [i['bbox'] for i in one['instances']]
        # mmdet reads VOC corners as they are: counted from 1, last included
        others = [[x1 - 1 + 1, y1 - 1 + 1, x2, y2] for x1, y1, x2, y2 in (i['bbox'] for i in two['instances'])]
        assert np.allclose(boxes, others, atol=1)


@pytest.mark.parametrize('args', [('--train', '0'), ('--size', '8', '8')])
def test_bad_arguments(args, tmp_path):
    result = subprocess.run(
        [sys.executable, '-m', 'demo.make_shapes_dataset', str(tmp_path), *args],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert result.returncode == 2
    assert 'Expected --' in result.stderr


def test_second_call_writes_nothing(shapes):
    marker = shapes / 'annotations/instances_train.json'
    before = marker.stat().st_mtime_ns
    result = subprocess.run(
        [
            sys.executable,
            '-m',
            'demo.make_shapes_dataset',
            str(shapes),
            '--train',
            '8',
            '--val',
            '4',
            '--size',
            '64',
            '64',
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert 'already' in result.stdout
    assert marker.stat().st_mtime_ns == before
