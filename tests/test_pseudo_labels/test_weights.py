"""Labels that count by a weight, from the file to the loss."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from torch.testing import assert_close

from kd_ext.data.labelled import LabelledData
from kd_ext.pseudo_labels.training import unlabelled_config
from kd_ext.pseudo_labels.weights import LabelWeightHook, WeighLabels, weigh_targets
from tests.helpers import detector_zoo as zoo
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny
from tests.test_pseudo_labels.test_training import plain, write_labels


def built(cfg):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(cfg.train_dataloader.dataset)


@pytest.mark.parametrize('weight, expected', [('score', 0.8), (0.25, 0.25), (0, 0)])
def test_a_label_has_its_weight_after_the_pipeline(shapes, tmp_path, weight, expected):
    cfg = plain(shapes, tmp_path, tiny.faster_rcnn(num_classes=6))
    said = unlabelled_config(cfg, write_labels(tmp_path, shapes), weight=weight)
    assert 'their score' in said[2] if weight == 'score' else str(weight) in said[2]
    data = built(cfg)
    for index in range(8, 12):
        sample = data[index]['data_samples']
        assert sample.gt_instances.labels.tolist() == [0] and len(sample.ignored_instances) == 1
        assert_close(sample.gt_instances.weights, torch.tensor([float(expected)]))
        assert sample.ignored_instances.labels.tolist() == [2]
    assert 'weights' not in data[0]['data_samples'].gt_instances
    # other readers of the training data see plain labels
    labelled = LabelledData(cfg, 'train')
    assert labelled[8]['data_samples'].gt_instances.labels.tolist() == [0]


def test_weights_follow_their_boxes():
    """Through a transform that reorders and drops boxes."""
    from mmcv.transforms import Compose

    results = dict(
        instances=[dict(bbox=[0, 0, size, size], bbox_label=label, ignore_flag=0, score=score)
                   for size, label, score in ((3, 1, 0.1), (20, 2, 0.5), (30, 0, 1.0), (2, 2, 0.9))],
        img=torch.zeros(40, 40, 3).numpy(), img_shape=(40, 40), ori_shape=(40, 40), img_path='', img_id=0,
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmdet'):
        steps = Compose(
            [
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='kd_ext.WeighLabels'),
                dict(type='RandomFlip', prob=1.0),
                dict(type='FilterAnnotations', min_gt_bbox_wh=(10, 10)),
                dict(type='kd_ext.PackWeighedInputs', meta_keys=()),
            ]
        )
        found = steps(results)['data_samples'].gt_instances
    assert found.labels.tolist() == [2, 0] and found.bboxes.tensor[:, 0].tolist() == [20, 10]
    assert_close(found.weights, torch.tensor([0.5, 1.0]))


def losses(model, weights=None):
    """The losses of a batch of two images with two objects each, as numbers."""
    data = tiny.batch(size=(64, 64), seed=3)
    with torch.no_grad():
        batch = model.data_preprocessor(data, True)
        for sample in batch['data_samples']:
            count = len(sample.gt_instances)
            if weights is not None:
                sample.gt_instances.weights = torch.tensor(weights[:count])
        torch.manual_seed(7)  # of the sampled proposals
        found = model(**batch, mode='loss')
    flat = {key: sum(value) if isinstance(value, list) else value for key, value in found.items() if 'loss' in key}
    return {key: float(value) for key, value in flat.items()}


@pytest.mark.parametrize(
    'name, weighed',
    [
        ('RetinaNet', ['loss_cls', 'loss_bbox']),
        ('ATSS', ['loss_cls']),
        ('GFL', ['loss_cls']),
        ('Faster R-CNN', ['loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox']),
        ('Cascade R-CNN', ['loss_rpn_cls', 's0.loss_cls', 's1.loss_cls']),
    ],
)
def test_each_label_counts_by_its_own_weight(name, weighed):
    model = tiny.build(zoo.detector(name)).train()
    for module in model.modules():  # the same statistics in each call
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    before = losses(model)
    assert weigh_targets(model)
    assert_close(losses(model), before)
    assert_close(losses(model, [1.0, 1.0, 1.0, 1.0]), before)
    # the loss is a sum over labels, each by its weight: f(a, b) + f(b, a) = f(a, a) + f(b, b)
    low, high = 0.25, 0.75
    mixed = [losses(model, [one, two, one, two]) for one, two in ((low, high), (high, low))]
    equal = [losses(model, [one] * 4) for one in (low, high)]
    for key in weighed:
        assert_close(sum(one[key] for one in mixed), sum(one[key] for one in equal), rtol=1e-4, atol=1e-5)
        assert abs(equal[1][key] - equal[0][key]) > 1e-4, key  # it matters
        # half the weight of all: half of what the labels add
        middle = losses(model, [0.5] * 4)[key]
        assert_close(2 * middle, equal[0][key] + equal[1][key], rtol=1e-4, atol=1e-5)
    assert any(abs(mixed[0][key] - mixed[1][key]) > 1e-5 for key in weighed)  # and to whom it belongs


def test_a_student_that_cannot_weigh_labels():
    with pytest.raises(ValueError, match='head weighs labels .*FCOS.*--unlabelled-ratio'):
        LabelWeightHook().before_train(SimpleNamespace(model=tiny.build(tiny.fcos())))


@pytest.mark.parametrize('weight', [-0.1, 1.5, 'scores', float('nan'), None])
def test_wrong_weights(weight):
    with pytest.raises(ValueError, match="weight of the labels to be from 0 to 1, or 'score'"):
        WeighLabels(weight)


def test_another_end_of_the_pipeline(shapes, tmp_path):
    cfg = plain(shapes, tmp_path)
    cfg.train_dataloader.dataset.pipeline.append(dict(type='RandomFlip', prob=0.0))
    with pytest.raises(ValueError, match='ends in PackDetInputs .*RandomFlip'):
        unlabelled_config(cfg, write_labels(tmp_path, shapes), weight=0.5)


@pytest.mark.slow
def test_a_training_with_scores_as_weights(shapes, tmp_path):
    cfg = plain(shapes, tmp_path, copy.deepcopy(tiny.faster_rcnn(num_classes=6)), epochs=1)
    unlabelled_config(cfg, write_labels(tmp_path, shapes), weight='score')
    training.train(cfg)
    assert (tmp_path / 'run/epoch_1.pth').exists()
