"""Heads with a way of their own, and those that are refused."""

import pytest
import torch
from mmdet.registry import MODELS
from torch.testing import assert_close

from kd_ext.taps import RegionTap, Watch, find_head, heads, run_own_loss
from kd_ext.taps.heads import DenseHead
from kd_ext.taps.heads.refused import REFUSED, refusal
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny


@pytest.mark.parametrize('name', ['CondInst', 'YOLACT', 'RTMDet-Ins'])
def test_regions_without_masks(name):
    # as of a teacher whose student's data hold boxes alone
    model = tiny.build(zoo.detector(name)).eval()
    data = model.data_preprocessor(zoo.batch(name), True)
    head = find_head(model, 'teacher')
    with_masks = run_own_loss(model, head, **data)
    data = model.data_preprocessor(zoo.batch(name), True)
    for sample in data['data_samples']:
        del sample.gt_instances.masks
    seen = run_own_loss(model, head, **data)
    assert torch.equal(seen.labels, with_masks.labels)
    assert_close(seen.embeddings, with_masks.embeddings)
    assert not {'loss', 'loss_by_feat'} & {*vars(head.module), *vars(getattr(model, 'mask_head', model))}


@pytest.mark.parametrize('name', ['SOLO', 'SOLOv2', 'Mask2Former'])
def test_regions_that_need_masks_say_so(name):
    model = tiny.build(zoo.detector(name)).eval()
    data = model.data_preprocessor(zoo.batch(name), True)
    head = find_head(model, 'teacher')
    for sample in data['data_samples']:
        del sample.gt_instances.masks
    with pytest.raises(ValueError, match=f'annotations to be with masks, by which {head.name} assigns its regions'):
        run_own_loss(model, head, **data)
    assert 'loss' not in vars(head.module)


def test_proposals_are_those_before_grid_rcnn_moves_them():
    model = tiny.build(zoo.detector('Grid R-CNN'))
    data = model.data_preprocessor(zoo.batch('Grid R-CNN'), True)
    head = find_head(model, 'student')
    with head.watch() as watch, Watch(pool=model.roi_head.bbox_roi_extractor) as pooled:
        model(**data, mode='loss')
    places = head.regions(watch).places
    assert torch.equal(places, pooled.calls['pool'][0].args[1])


def test_fsaf_keeps_one_level_for_each_object():
    _, _, _, regions = zoo.read('FSAF')
    levels = {}
    start = 0
    for level, (image, _, _) in enumerate(regions.places.where):
        for one, label in zip(image.tolist(), regions.labels[start:].tolist()):
            levels.setdefault((one, label), set()).add(level)
        start += len(image)
    assert sorted(levels) == [(image, label) for image in range(2) for label in range(zoo.CLASSES)]
    assert all(len(found) == 1 for found in levels.values())


def test_yolov3_scores_classes_after_boxes():
    _, head, _, regions = zoo.read('YOLOv3')
    layer = head.layers[0]
    every = torch.einsum('nd,od->no', regions.embeddings[:1], layer.weight[:, :, 0, 0]) + layer.bias
    found = every.unflatten(1, (3, 8))[0, :, 5:]
    assert (found - regions.logits[0]).abs().amax(1).min() < 1e-5
    assert_close(head.classifier_rows(), layer.weight[:, :, 0, 0].unflatten(0, (3, 8))[:, 5:].mean(0))


@pytest.mark.parametrize('name', zoo.UNREAD)
def test_refused_heads_say_why(name):
    model = tiny.build(zoo.detector(name))
    with pytest.raises(ValueError) as error:
        RegionTap().head(model, 'student')
    for part in (
        type(model.bbox_head).__name__,
        refusal(model.bbox_head),
        'RoI heads',
        'FCOS',
        'RTMDet',
        'DINO',
        "at='neck'",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize('name', REFUSED)
def test_refused_heads_are_of_mmdet(name):
    assert MODELS.get(name) is not None


def test_find_head_takes_no_setting_that_means_nothing():
    model = tiny.build(zoo.detector('FCOS'))
    assert find_head(model, 'teacher', levels=(1,)).levels == (1,)
    with pytest.raises(ValueError, match='stage to be left out'):
        find_head(model, 'teacher', stage=1)


def test_a_kind_of_head_can_be_added(monkeypatch):
    class Own(DenseHead):
        @classmethod
        def recognises(cls, model):
            return getattr(model, 'of_my_own', False)

    monkeypatch.setattr(heads, 'HEADS', [Own, *heads.HEADS])
    model = tiny.build(zoo.detector('FCOS'))
    assert type(find_head(model, 'student')) is DenseHead
    model.of_my_own = True
    assert type(find_head(model, 'student')) is Own
