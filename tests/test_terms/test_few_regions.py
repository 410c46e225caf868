"""Batches that hold little to learn from: finite, zero, still in the graph."""

import pytest
import torch
from mmengine import MessageHub

from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny
from tests.helpers.coverage_table import settle

HEADS = [
    'Faster R-CNN',
    'Cascade R-CNN',
    'FCOS',
    'RetinaNet',
    'PAA',
    'RTMDet',
    'YOLOX',
    'SSD',
    'DETR',
    'DINO',
    'Sparse R-CNN',
]
ROI = ('Faster R-CNN', 'Cascade R-CNN')  # these have background regions
ENTRIES = dict(nd=dict(type='kd_ext.NDLoss', at='embedding'), nckd=dict(type='kd_ext.NCKDLoss', at='embedding'))


@pytest.fixture(autouse=True)
def epoch():
    MessageHub.get_current_instance().update_info('epoch', 9)


def keep(data, wanted):
    """The batch with those objects alone whose label is in ``wanted``."""
    for sample in data['data_samples']:
        labels = sample.gt_instances.labels
        sample.gt_instances = sample.gt_instances[torch.isin(labels, torch.tensor(wanted, dtype=labels.dtype))]
    return data


def backward(model, data):
    """Terms after a backward pass of the whole loss, all of it finite."""
    losses = tiny.losses(model, data)
    model.zero_grad()
    model.parse_losses(losses)[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is None or bool(torch.isfinite(p.grad).all()), name
    return {key[13:]: float(value.detach()) for key, value in losses.items() if key.startswith('distill.loss_')}


def without_gradient(model):
    return {name for name, p in model.named_parameters() if p.grad is None}


def alone(head, data):
    """Parameters without gradient when the student trains alone."""
    student = tiny.build(zoo.detector(head)).train()
    data = student.data_preprocessor(data, True)
    student.parse_losses(student(**data, mode='loss'))[0].backward()
    return without_gradient(student)


@pytest.mark.parametrize('head', HEADS)
def test_no_object(head):
    model = tiny.distill(zoo.detector(head), zoo.detector(head, 8), **ENTRIES)
    model.train()
    terms = backward(model, keep(zoo.batch(head), []))
    assert terms['nckd_nc1'] == terms['nckd_nc2'] == 0
    # background is a class of ND's, as in the released code
    assert (terms['nd'] > 0) is (head in ROI)
    assert without_gradient(model) <= alone(head, keep(zoo.batch(head), []))


@pytest.mark.parametrize('head', HEADS)
def test_one_class_then_a_new_one(head):
    model = tiny.distill(zoo.detector(head), zoo.detector(head, 8), **ENTRIES)
    model.train()
    # an untrained network without batch statistics puts out next to nothing
    settle(model.teacher, head)
    terms = backward(model, keep(zoo.batch(head), [1]))
    assert terms['nckd_nc2'] == 0  # there are no two classes to compare
    assert terms['nd'] > 0
    means = next(iter(model.distiller.class_means.values())).means
    seen = means.abs().sum(1) > 0
    assert seen.tolist()[:3] == [False, True, False]
    terms = backward(model, keep(zoo.batch(head), [1, 2]))
    seen = means.abs().sum(1) > 0
    assert seen.tolist()[:3] == [False, True, True]
    assert terms['nd'] > 0


@pytest.mark.parametrize('head', ['FCOS', 'DETR'])
def test_teacher_is_the_student(head):
    # one region a class: the running means are the embeddings themselves
    cfg = zoo.detector(head)
    model = tiny.build(dict(type='kd_ext.DetectionDistill', student=cfg, teacher=tiny.build(cfg), distill=ENTRIES))
    model.student.load_state_dict(model.teacher.state_dict())
    model.train()
    model.student.eval()
    data = zoo.batch(head)
    data = {key: value[:1] for key, value in data.items()}
    if head == 'FCOS':
        # a box of two cells of the finest level holds few points
        for sample in data['data_samples']:
            sample.gt_instances.bboxes = torch.tensor(
                [[9.0, 9.0, 15.0, 15.0], [41.0, 41.0, 47.0, 47.0], [73.0, 73.0, 79.0, 79.0]]
            )
    losses = tiny.losses(model, data)
    assert float(losses['distill.loss_nd']) == pytest.approx(0, abs=1e-5)
    assert float(losses['distill.loss_nckd_nc2']) == pytest.approx(0, abs=1e-6)
