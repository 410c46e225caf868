"""Lipschitz matching between backbones of other families and strides."""

import pytest
import torch

from kd_ext.build.probe import PROBE_SIZE
from kd_ext.terms.level_pairing import stride_of
from tests.helpers.backbone_detectors import detector
from tests.helpers.tiny_detectors import distill, fcos, losses, rcka

LIPSCHITZ = dict(type='kd_ext.LipschitzLoss', at='backbone', relative=True)
CONV_BN = dict(type='kd_ext.ConvBNConnector')
FOUR, THREE, TWO = (4, 8, 16, 32), (8, 16, 32), (8, 16)


@pytest.mark.parametrize(
    ('student', 'teacher', 'strides'),
    [
        ('R18', 'R34', FOUR),
        ('R18', 'R50', FOUR),
        ('R18', 'R50 of 8, 16, 32', THREE),
        ('X50', 'R50', FOUR),
        ('MobileNetV2', 'R50', FOUR),
        ('Swin', 'R50', FOUR),
        ('Res2Net', 'R50', FOUR),
        ('ResNeSt', 'R50', FOUR),
        ('RegNet', 'R50', FOUR),
        ('EfficientNet', 'R50', FOUR),
        ('HRNet', 'R50', FOUR),
        ('PVT', 'R50', FOUR),
        ('PVTv2', 'R50', FOUR),
        ('CSPNeXt', 'R50', THREE),
        ('PVT', 'Swin', FOUR),
        ('CSPDarknet', 'R50', THREE),
        ('SSDVGG', 'R50', TWO),
        ('MobileNetV2', 'SSDVGG', TWO),
    ],
)
def test_one_step(student, teacher, strides):
    model = distill(detector(student), detector(teacher), lipschitz=LIPSCHITZ)
    term = model.distiller.terms['lipschitz']
    assert not term.connectors and len(term.pairs) == len(strides)
    with model.distiller.reading(model.student) as seen:
        model.student.eval().backbone(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE))
    maps = seen.levels('backbone')
    assert tuple(stride_of(maps[i].shape) for i, _ in term.pairs) == strides
    model.train()
    values = losses(model)
    value = values['distill.loss_lipschitz']
    assert bool(value.isfinite()) and float(value.detach()) > 0
    value.backward()  # alone, so that no task loss hides its absence
    first = next(model.student.backbone.parameters())
    assert bool(first.grad.isfinite().all()) and bool(first.grad.any())


@pytest.mark.parametrize('amp', [False, True])
def test_identical_models(amp):
    model = distill(teacher=fcos(), lipschitz=LIPSCHITZ)
    model.teacher.load_state_dict(model.student.state_dict())
    model.eval()  # BN of a batch is not that of the teacher
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        value = losses(model)['distill.loss_lipschitz']
    value.backward()
    assert float(value.detach()) == 0.0
    grads = [p.grad for p in model.student.backbone.parameters() if p.grad is not None]
    assert grads and not any(bool(grad.any()) for grad in grads)


@pytest.mark.parametrize(
    'student',
    [
        'R18',
        'X50',
        'Res2Net',
        'ResNeSt',
        'RegNet',
        'MobileNetV2',
        'EfficientNet',
        'HRNet',
        'PVT',
        'PVTv2',
        'Swin',
        'CSPNeXt',
        'CSPDarknet',
    ],
)
def test_one_step_at_the_neck(student):
    model = distill(detector(student), detector('R50'), rcka=rcka())
    model.train()
    value = losses(model)['distill.loss_rcka']
    assert bool(value.isfinite()) and float(value.detach()) > 0
    value.backward()
    first = next(model.student.backbone.parameters())
    assert bool(first.grad.isfinite().all()) and bool(first.grad.any())


def test_no_two_pairs():
    with pytest.raises(
        ValueError,
        match=r'Expected distill\.lipschitz to be '
        r"read at levels of which 2 or more.*student's strides "
        r"4, 8 and the teacher's strides 16, 32",
    ):
        distill(detector('R18 of 4, 8'), detector('R18 of 16, 32'), lipschitz=LIPSCHITZ)
    model = distill(detector('R18 of 4, 8'), detector('R18 of 16, 32'), lipschitz=dict(LIPSCHITZ, levels=(0, 1)))
    assert model.distiller.terms['lipschitz'].pairs == [(0, 0), (1, 1)]


def test_wrong_number_of_weights_is_told_before_training():
    with pytest.raises(ValueError, match='stage_weights to be 2 numbers'):
        distill(lipschitz=dict(LIPSCHITZ, stage_weights=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    'connector', [CONV_BN, dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)]
)
def test_connectors_when_asked_for(connector):
    model = distill(lipschitz=dict(LIPSCHITZ, connector=connector))
    term = model.distiller.terms['lipschitz']
    assert len(term.connectors) == len(term.pairs) == 3
    losses(model)['distill.loss_lipschitz'].backward()
    assert all(p.grad is not None for p in model.distiller.parameters())
    assert bool(model.student.backbone.conv1.weight.grad.any())


def test_strides_are_told():
    model = distill(teacher=detector('R50'), lipschitz=LIPSCHITZ)
    assert list(model.distiller.matches) == [
        'lipschitz: backbone[0] (8, 40, 40) stride 8 <- backbone[1] (32, 40, 40) stride 8',
        'lipschitz: backbone[1] (16, 20, 20) stride 16 <- backbone[2] (64, 20, 20) stride 16',
        'lipschitz: backbone[2] (32, 10, 10) stride 32 <- backbone[3] (128, 10, 10) stride 32',
        'lipschitz: strides without a partner: teacher 4',
    ]
