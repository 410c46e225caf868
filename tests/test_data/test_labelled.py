"""Images with the labels a loss needs: order of loading, wrappers, errors."""

import copy
import json

import cv2
import pytest
import torch
from mmengine.config import Config

from kd_ext.data.labelled import LabelledData, class_names, labelled_pipeline, spread
from tests.helpers import short_trainings as training
from tests.helpers.data_sets import BCCD, ROOT

COCO = ('LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs')


def pipeline(*names):
    return [dict(type=name) for name in names]


def names(steps):
    return [step['type'].rpartition('.')[-1] for step in steps]


@pytest.fixture
def cfg(shapes, tmp_path):
    return training.config(shapes, tmp_path, 'random')


def test_labels_are_loaded_with_the_image():
    train = [
        dict(type='LoadImageFromFile', to_float32=True),
        dict(type='mmdet.LoadAnnotations', with_mask=True),
        *pipeline('RandomFlip', 'PackDetInputs'),
    ]
    made = labelled_pipeline(pipeline(*COCO), train)
    assert names(made) == ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'FilterAnnotations', 'PackDetInputs']
    assert made[1] == train[1] and 'to_float32' not in made[0]
    assert made[3] == dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False)


def test_filter_of_the_training_counts():
    own = dict(type='FilterAnnotations', min_gt_bbox_wh=(5, 6), by_mask=True)
    made = labelled_pipeline(pipeline(*COCO), [own])
    assert made[-2] == {**own, 'keep_empty': False}
    assert 'keep_empty' not in own


def test_a_pipeline_without_images():
    with pytest.raises(ValueError, match='Expected the validation.*loads im'):
        labelled_pipeline(pipeline('PackDetInputs'), [])


def test_boxes_fit_the_resized_image(cfg, shapes):
    plain = LabelledData(cfg)
    cfg.val_dataloader.dataset.pipeline[1].scale_factor = 2.5
    large = LabelledData(cfg)
    assert len(large) == 8 and len(large.classes) == 6
    for index in range(len(large)):
        small, scaled = (data[index]['data_samples'] for data in (plain, large))
        assert scaled.img_shape == (160, 160)
        boxes = [one.gt_instances.bboxes.tensor for one in (small, scaled)]
        torch.testing.assert_close(2.5 * boxes[0], boxes[1])


def test_nothing_is_random(cfg):
    cfg.train_dataloader.dataset.pipeline[2].prob = 0.5
    data = LabelledData(cfg)
    first = [data[index]['inputs'] for index in range(len(data))]
    assert all(torch.equal(data[index]['inputs'], image) for index, image in enumerate(first))


def wrapped(kind, inner):
    return {
        'repeat': dict(type='RepeatDataset', times=3, dataset=inner),
        'balanced': dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=inner),
        'mixed': dict(
            type='MultiImageMixDataset',
            dataset=dict(inner, pipeline=inner['pipeline'][:2]),
            pipeline=pipeline('Mosaic', 'FilterAnnotations', 'PackDetInputs'),
        ),
        'several': dict(
            type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, dict(inner, indices=2)])
        ),
    }[kind]


@pytest.mark.parametrize('kind, images', [('repeat', 8), ('balanced', 8), ('mixed', 8), ('several', 10)])
def test_wrappers_count_as_what_they_wrap(cfg, kind, images):
    plain = LabelledData(cfg)
    inner = copy.deepcopy(cfg.train_dataloader.dataset)
    inner.pipeline[1]['with_label'] = True
    cfg.train_dataloader.dataset = wrapped(kind, inner)
    data = LabelledData(cfg)
    assert len(data) == images
    assert data.configs[0]['pipeline'][1]['with_label']
    for index in (0, 7, images - 1):
        assert torch.equal(data[index]['inputs'], plain[index % 8]['inputs'])
    assert data.path(images - 1) == plain.path((images - 1) % 8)


def test_filter_cfg_of_the_training_holds(cfg, shapes, tmp_path):
    path = shapes / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    first = content['images'][0]['id']
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] != first]
    (tmp_path / 'train.json').write_text(json.dumps(content))
    cfg.train_dataloader.dataset.ann_file = str(tmp_path / 'train.json')
    assert len(LabelledData(cfg)) == 7
    cfg.train_dataloader.dataset.filter_cfg = None
    data = LabelledData(cfg)
    assert len(data) == 8
    assert len(data[0]['data_samples'].gt_instances) == 0


def test_a_split_without_annotations(cfg, shapes, tmp_path):
    content = json.loads((shapes / 'annotations/instances_val.json').read_text())
    content['annotations'] = []
    (tmp_path / 'val.json').write_text(json.dumps(content))
    cfg.val_dataloader.dataset.ann_file = str(tmp_path / 'val.json')
    with pytest.raises(ValueError, match='4 images without a single annot'):
        LabelledData(cfg, 'val')
    assert len(LabelledData(cfg)) == 8


def test_a_missing_split(cfg):
    cfg.train_dataloader = None
    with pytest.raises(ValueError, match='Expected train_dataloader.*val, te'):
        LabelledData(cfg)


def test_parts_of_other_classes(cfg):
    inner = cfg.train_dataloader.dataset
    other = copy.deepcopy(inner)
    other.metainfo = dict(classes=('disk', 'ring'))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, other])
    with pytest.raises(ValueError, match='one set of classes, but got 6 and '):
        LabelledData(cfg)


def test_names_without_reading(cfg):
    cfg.train_dataloader.dataset.ann_file = 'missing.json'
    assert class_names(cfg)[:2] == ['disk', 'square']
    del cfg.train_dataloader.dataset['metainfo']
    assert class_names(cfg)[0] == 'person'  # of the class CocoDataset


def test_spread():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 9) == spread(3) == [0, 1, 2]


@pytest.mark.skipif(not BCCD.exists(), reason='KD_EXT_TEST_DATA names no folder with bccd')
@pytest.mark.parametrize('split', ['train', 'val'])
def test_bccd_boxes_have_an_area(monkeypatch, split):
    monkeypatch.setenv('BCCD_ROOT', f'{BCCD}/')
    data = LabelledData(Config.fromfile(ROOT / 'configs/fcos_r18_bccd.py'), split)
    assert data.classes == ['RBC', 'WBC', 'Platelets']
    smallest = 1e9
    for index in range(len(data)):
        boxes = data[index]['data_samples'].gt_instances.bboxes.tensor
        smallest = min(smallest, (boxes[:, 2:] - boxes[:, :2]).min().item())
    assert smallest > 1
    image = cv2.imread(data.path(0))
    assert image.shape[:2] == (480, 640)
    assert data[0]['data_samples'].img_shape == (240, 320)
