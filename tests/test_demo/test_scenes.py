"""The generated data set: from a seed, in both formats, told apart."""

import hashlib
import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from demo.letters import FONTS, LETTERS
from demo.scenes import CLASSES, MIN_VISIBLE, render_scene
from tests.helpers.data_sets import FEW_SHAPES, ROOT


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


def test_scenes_of_a_seed_stay_as_they_were():
    """Figures in results/ belong to these pixels."""
    total = hashlib.sha256()
    for index in range(10):
        drawn = render_scene(np.random.default_rng((0, 0, index)))
        total.update(drawn.boxes.tobytes() + drawn.labels.astype(np.int64).tobytes())
    assert total.hexdigest()[:16] == '63591fbda1df6c6b'


def test_letters_are_many_whole_and_hard_to_tell_apart():
    assert len(LETTERS.classes) >= 24 and len(set(FONTS)) >= 5
    scenes = [render_scene(np.random.default_rng(seed), (96, 96), 6, LETTERS) for seed in range(150)]
    labels = np.concatenate([one.labels for one in scenes])
    assert set(labels) == set(range(len(LETTERS.classes)))

    def draw(name):
        """The same fonts, turns and slants for every class."""
        label, middle = LETTERS.classes.index(name), np.array([32.0, 32.0])
        return [LETTERS.mask(np.random.default_rng(seed), label, (64, 64), middle, 20.0) for seed in range(20)]

    drawn = {name: draw(name) for name in 'EFCGTPR'}
    assert all(30 < mask.sum() < 2200 for masks in drawn.values() for mask in masks)
    assert len({mask.tobytes() for mask in drawn['E']}) == 20
    apart = {
        pair: np.mean([(a ^ b).sum() / (a | b).sum() for a, b in zip(drawn[pair[0]], drawn[pair[1]])])
        for pair in ('EF', 'ET', 'CG', 'CT', 'PR', 'PT')
    }
    assert apart['EF'] < apart['ET'] and apart['CG'] < apart['CT'] and apart['PR'] < apart['PT']


def test_letters_have_their_holes():
    drawn = LETTERS.mask(np.random.default_rng(1), LETTERS.classes.index('D'), (64, 64), np.array([32.0, 32.0]), 24.0)
    assert not drawn[32, 32] and drawn.sum() > 200


def test_third_split_and_letters_on_disk(tmp_path):
    def make(name, *args):
        subprocess.check_call(
            [
                sys.executable,
                '-m',
                'demo.make_shapes_dataset',
                str(tmp_path / name),
                '--train',
                '3',
                '--val',
                '2',
                *args,
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        return {path.name: path.read_bytes() for path in (tmp_path / name / 'VOC2007/JPEGImages').iterdir()}

    plain, more = make('plain'), make('more', '--tuning', '2')
    assert {name for name in more if name not in plain} == {'tuning_00000.jpg', 'tuning_00001.jpg'}
    assert all(more[name] == plain[name] for name in plain)
    assert not (tmp_path / 'plain/annotations/instances_tuning.json').exists()
    assert len(set(more.values())) == 7  # no image twice
    make('letters', '--objects', 'letters')
    coco = json.loads((tmp_path / 'letters/annotations/instances_train.json').read_text())
    assert [one['name'] for one in coco['categories']] == list(LETTERS.classes)
    xml = (tmp_path / 'letters/VOC2007/Annotations/train_00000.xml').read_text()
    first = next(one for one in coco['annotations'] if one['image_id'] == 0)
    assert f'<name>{LETTERS.classes[first["category_id"] - 1]}</name>' in xml


@pytest.mark.parametrize('args', [('--train', '0'), ('--tuning', '-1'), ('--size', '8', '8')])
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
        [sys.executable, '-m', 'demo.make_shapes_dataset', str(shapes), *FEW_SHAPES],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert 'already' in result.stdout
    assert marker.stat().st_mtime_ns == before
