"""Stages before their activation, and the margin-ReLU term on them."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch.testing import assert_close

from kd_ext.connectors.margins import bn_margin
from kd_ext.taps import Reading
from kd_ext.taps.pre_relu import PreReluTap, Stage, find_stages
from tests.helpers.backbone_detectors import detector
from tests.helpers.tiny_detectors import batch, build, distill, fcos, losses, rcka

OFD = dict(
    type='mmrazor.OFDLoss',
    at='pre_relu',
    connector=dict(type='kd_ext.ConvBNConnector'),
    teacher_connector=dict(type='mmrazor.OFDTeacherConnector'),
)
LIPSCHITZ = dict(
    type='kd_ext.LipschitzLoss', at='pre_relu', relative=True, connector=dict(type='kd_ext.ConvBNConnector')
)


def read(model, *keys):
    taps = {key: PreReluTap() for key in keys if key == 'pre_relu'}
    if 'backbone' in keys:
        from kd_ext.taps import build_tap

        taps['backbone'] = build_tap('backbone')
    with Reading(taps, model, 'student') as seen:
        model.backbone(torch.rand(2, 3, 64, 64))
    return [seen.levels(key) for key in keys]


@pytest.mark.parametrize(
    ('name', 'stages'),
    [
        ('R18 of 4, 8', [Stage('layer1.1.relu', 'layer1.1.bn2'), Stage('layer2.1.relu', 'layer2.1.bn2')]),
        (
            'R50 of 8, 16, 32',
            [Stage(f'layer{k}.{last}.relu', f'layer{k}.{last}.bn3') for k, last in ((2, 3), (3, 5), (4, 2))],
        ),
        ('SSDVGG', [Stage('features.22', None), Stage('features.34', None)]),
        (
            'MobileNetV2',
            [
                Stage(None, None),  # a sum: no module puts it out
                Stage(None, None),
                Stage(None, None),
                Stage('conv2.activate', 'conv2.bn'),
            ],
        ),
        ('Swin', [Stage(None, None)] * 4),
    ],
)
def test_stages(name, stages):
    assert find_stages(build(detector(name)).backbone) == stages


def test_csp_darknet_ends_in_swish():
    stages = find_stages(build(detector('CSPDarknet')).backbone)
    assert all(stage.activation.endswith('activate') and stage.norm.endswith('bn') for stage in stages)


@pytest.mark.parametrize('name', ['R18', 'R50', 'SSDVGG', 'MobileNetV2'])
def test_what_the_activation_gets(name):
    model = build(detector(name))
    for module in model.modules():  # mmdet starts blocks at a weight of 0
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_(1.0)
    before, after = read(model, 'pre_relu', 'backbone')
    stages = find_stages(model.backbone)
    for low, high, stage in zip(before, after, stages):
        if stage.activation is None:
            assert low is high
            continue
        module = model.backbone.get_submodule(stage.activation)
        assert_close(module(low.clone()), high)
        assert bool((low < 0).any()) and low.requires_grad
        # left as it was: in place again, no hook
        assert getattr(module, 'inplace', True)
        assert not module._forward_pre_hooks


def test_shared_activation():

    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)
            self.relu = torch.nn.ReLU()

        def forward(self, maps):
            first = self.relu(self.conv(maps))
            return first, self.relu(self.conv(first))

    with pytest.raises(
        ValueError,
        match=r"at='pre_relu' to be read from a "
        r'student.*backbone\.relu, which runs again',
    ):
        find_stages(Backbone())


class TestMarginTerm:
    def test_value(self):
        """The released formula, worked out from the stages themselves."""
        teacher = build(fcos(8), seed=1)
        for module in teacher.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.data.normal_(0, 0.3)
        model = distill(
            teacher=teacher, teacher_ckpt=None, ofd=dict(OFD, level_weights=(0.25, 0.5, 1.0), loss_weight=2.0)
        )
        data = model.data_preprocessor(batch(), True)
        total = model(**data, mode='loss')['distill.loss_ofd']
        tap, term = PreReluTap(), model.distiller.terms['ofd']
        with torch.no_grad():
            model.teacher(data['inputs'], None, mode='tensor')
            seen = []
            for role in ('student', 'teacher'):
                net = getattr(model, role)
                with Reading(dict(x=tap), net, role) as reading:
                    net.backbone(data['inputs'])
                seen.append(reading.levels('x'))
        wanted = 0.0
        for level, (low, high) in enumerate(zip(*seen)):
            block = getattr(model.teacher.backbone, f'layer{level + 2}')[-1]
            high = torch.maximum(high, bn_margin(block.bn2)[:, None, None])
            low = term.connectors[level](low, high)
            counted = (low > high) | (high > 0)
            wanted = wanted + (((low - high) ** 2)[counted].sum() / 2 / 1000 * 2.0 * (0.25, 0.5, 1.0)[level])
        assert_close(total, wanted)
        total.backward()
        assert bool(model.student.backbone.conv1.weight.grad.any())

    def test_full_objective_shares_connectors(self):
        model = distill(lipschitz=LIPSCHITZ, ofd=dict(OFD, connector='lipschitz'))
        terms = model.distiller.terms
        assert terms['ofd'].connectors is terms['lipschitz'].connectors
        alone = distill(lipschitz=LIPSCHITZ)
        count = [sum(p.numel() for p in m.distiller.parameters()) for m in (model, alone)]
        assert count[0] == count[1]
        # with paramwise_cfg MMEngine goes through modules, not parameters
        wrapper = build_optim_wrapper(
            model, dict(optimizer=dict(type='SGD', lr=0.1, weight_decay=0.1), paramwise_cfg=dict(norm_decay_mult=0.0))
        )
        groups = wrapper.optimizer.param_groups
        assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))
        copied = copy.deepcopy(model).distiller.terms
        assert copied['ofd'].connectors is copied['lipschitz'].connectors
        values = losses(model)
        sum(values[f'distill.loss_{key}'] for key in terms).backward()
        assert bool(model.student.backbone.conv1.weight.grad.any())
        plain = build(fcos(), seed=5)
        assert not any(plain.load_state_dict(model.state_dict()))

    @pytest.mark.parametrize(
        ('connector', 'ofd', 'match'),
        [
            ('lipschit', {}, 'Did you mean: lipschitz'),
            ('lipschitz', dict(at='backbone'), 'the same levels at the same'),
            ('lipschitz', dict(levels=(0, 1)), 'the same levels at the same'),
        ],
    )
    def test_nothing_to_share(self, connector, ofd, match):
        with pytest.raises(ValueError, match=match):
            distill(lipschitz=LIPSCHITZ, ofd=dict(type='mmrazor.PKDLoss', at='pre_relu', connector=connector) | ofd)

    @pytest.mark.parametrize(
        ('teacher', 'changes', 'match'),
        [
            ('R18', dict(at='neck'), "at to be 'pre_relu', where margins"),
            (
                'SSDVGG',
                {},
                'a BN before the activation, but got level 0 of SSDVGG without one. kd_ext.RunningMarginConnector',
            ),
            ('R18', dict(level_weights=(1.0,)), 'level_weights to be 3 numbers'),
            ('R18', dict(LIPSCHITZ, level_weights=(1.0,) * 3), 'left out'),
            ('R18', dict(at='embedding'), 'without level_weights where|without teacher_connector where'),
        ],
    )
    def test_what_does_not_fit(self, teacher, changes, match):
        with pytest.raises(ValueError, match=match):
            distill(teacher=detector(teacher), ofd={**OFD, **changes})

    def test_teacher_without_bn(self):
        model = distill(
            teacher=detector('SSDVGG'), ofd=dict(OFD, teacher_connector=dict(type='kd_ext.RunningMarginConnector'))
        )
        values = losses(model)
        assert bool(values['distill.loss_ofd'].isfinite())
        term = model.distiller.terms['ofd']
        assert [len(c.margin) for c in term.teacher_connectors] == [512, 1024]
        assert all(bool((c.margin < 0).any()) for c in term.teacher_connectors)
        assert any('margin' in key for key in model.state_dict()._metadata['']['kd_ext'])

    def test_stops_after_the_backbone(self):
        model = distill(ofd=OFD)
        ran = []
        model.teacher.neck.register_forward_pre_hook(lambda module, args: ran.append(module))
        losses(model)
        assert not ran

    def test_beside_another_tap(self):
        # equal widths: no connector whose weights depend on the others'
        entry = rcka(at='backbone')
        values = losses(distill(teacher=fcos(), ofd=OFD, rcka=entry))
        alone = losses(distill(teacher=fcos(), rcka=entry))
        assert_close(values['distill.loss_rcka'], alone['distill.loss_rcka'])
