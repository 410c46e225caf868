"""Optimizer constructors give the distilled student the groups of the plain one."""

import pytest
import torch
from mmengine.dist import get_dist_info
from mmengine.model import BaseModule
from mmengine.model.utils import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from torch import nn

from tests.helpers.tiny_detectors import batch, build, distill, fcos, losses, rcka

KEYS = {
    'backbone.layer1': dict(lr_mult=0.1),
    'backbone': dict(lr_mult=0.5, decay_mult=2.0),
    '.bn1': dict(decay_mult=0.0),
    'neck.fpn_convs.0.conv.weight': dict(lr_mult=3.0),
    'level_scale': dict(lr_mult=7.0),
}


class TinyConvNeXt(BaseModule):
    """The names of mmpretrain's ConvNeXt, which mmdet's layer-wise constructor knows."""

    def __init__(self):
        super().__init__()
        widths = (3, 4, 8, 16, 32)
        self.downsample_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 2 + 2 * (a == 3), 2 + 2 * (a == 3)), nn.BatchNorm2d(b))
            for a, b in zip(widths, widths[1:])
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks)))
            for width, blocks in zip(widths[1:], (1, 1, 4, 1))
        )

    def forward(self, x):
        maps = []
        for down, stage in zip(self.downsample_layers, self.stages):
            x = stage(down(x))
            maps.append(x)
        return tuple(maps[1:])

    def depth(self, name, prefix):
        """As mmpretrain's backbones have it."""
        parts = name[len(prefix) :].split('.')
        return (int(parts[1]) + 1, 6) if name.startswith(prefix) and parts[0] == 'stages' else (0, 6)


class LayerDecay(DefaultOptimWrapperConstructor):
    """The walk of mmpretrain's LearningRateDecayOptimWrapperConstructor."""

    def add_params(self, params, module, prefix='', get_layer_depth=None):
        get_layer_depth = getattr(module, 'get_layer_depth', get_layer_depth)
        for name, param in module.named_parameters(recurse=False):
            layer, count = get_layer_depth(f'{prefix}.{name}' if prefix else name)
            scale = self.paramwise_cfg['layer_decay_rate'] ** (count - layer - 1)
            params.append(dict(params=[param], lr=self.base_lr * scale, weight_decay=self.base_wd * (param.ndim > 1)))
        for name, child in module.named_children():
            self.add_params(params, child, f'{prefix}.{name}' if prefix else name, get_layer_depth)


class ByModule(DefaultOptimWrapperConstructor):
    """The walk over ``named_modules`` of constructors such as mmyolo's."""

    def add_params(self, params, module, **kwargs):
        for name, part in module.named_modules():
            for key, param in part.named_parameters(recurse=False):
                lr = self.base_lr * (0.1 if name.startswith('backbone') else 1.0)
                params.append(dict(params=[param], lr=lr, weight_decay=0.0 if key == 'bias' else self.base_wd))


for constructor in (LayerDecay, ByModule):
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=constructor, force=True)


def student():
    model = build(fcos())
    model.level_scale = nn.Parameter(torch.ones(3))  # a parameter of the detector itself
    return model


def convnext():
    model = student()
    model.backbone = TinyConvNeXt()
    # as mmpretrain's classifiers have it
    model.get_layer_depth = lambda name: (
        model.backbone.depth(name, 'backbone.') if name.startswith('backbone') else (5, 6)
    )
    return model


def settings(model, constructor, paramwise):
    """Learning rate and weight decay of every parameter, by name."""
    cfg = dict(constructor=constructor, optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01), paramwise_cfg=paramwise)
    with DefaultScope.overwrite_default_scope('mmdet'):
        groups = build_optim_wrapper(model, cfg).param_groups
    found = {p: (group['lr'], group['weight_decay']) for group in groups for p in group['params']}
    return {name: found.pop(p) for name, p in model.named_parameters()}


ALL = [
    ('DefaultOptimWrapperConstructor', student, {}, 1),
    ('DefaultOptimWrapperConstructor', student, dict(custom_keys=KEYS), 5),
    ('DefaultOptimWrapperConstructor', student, dict(bias_lr_mult=2.0, norm_decay_mult=0.0), 3),
    ('LearningRateDecayOptimizerConstructor', convnext, dict(num_layers=6, decay_rate=0.7), 14),
    (
        'LearningRateDecayOptimizerConstructor',
        convnext,
        dict(num_layers=6, decay_rate=0.7, decay_type='stage_wise'),
        12,
    ),
    ('LayerDecay', convnext, dict(layer_decay_rate=0.7), 12),
    ('ByModule', student, dict(any=1), 4),
]


@pytest.mark.parametrize('constructor,make,paramwise,different', ALL)
def test_groups_of_the_plain_student(constructor, make, paramwise, different):
    plain = make()
    wanted = settings(plain, constructor, paramwise)
    assert len(wanted) == len(list(plain.parameters()))
    assert len(set(wanted.values())) == different
    # the entry's name and its connectors must match no key
    model = distill(student=plain, teacher=fcos(8, width=24), backbone=rcka())
    found = settings(model, constructor, paramwise)
    connectors = {name: found.pop(name) for name in list(found) if name.startswith('distiller.')}
    assert found == wanted and len(connectors) == 6
    if 'custom_keys' in paramwise or not paramwise:
        assert set(connectors.values()) == {(0.1, 0.01)}


def test_every_constructor_is_tried():
    import mmdet.engine  # noqa: F401
    from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS as OF_MMDET

    known = {*OPTIM_WRAPPER_CONSTRUCTORS.module_dict, *OF_MMDET.module_dict}
    assert known <= {name for name, *_ in ALL} and get_dist_info()[1] == 1


def test_names_are_the_students():
    model, plain = distill(teacher=fcos(8, width=24)), build(fcos())
    for kind in ('named_parameters', 'named_buffers', 'named_modules', 'named_children'):
        names = [name for name, _ in getattr(model, kind)() if not name.startswith('distiller')]
        assert names == [name for name, _ in getattr(plain, kind)()], kind
    for name, value in model.named_parameters():
        assert model.get_parameter(name) is value
    assert [p for _, p in model.named_parameters()] == list(model.parameters())
    assert model.student in set(model.modules()) and model.student in set(model.children())


def test_sync_bn_goes_to_the_student():
    model = distill(
        student=student(), teacher=fcos(8, width=24), rcka=rcka(connector=dict(type='kd_ext.ConvBNConnector'))
    )
    model.student.stem = nn.BatchNorm2d(3)  # a child that is replaced itself
    names = list(model.state_dict())
    convert_sync_batchnorm(model, 'torch')
    for part in (model.student, model.distiller):
        kinds = {type(m) for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        assert kinds == {nn.SyncBatchNorm}
    revert_sync_batchnorm(model)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    assert list(model.state_dict()) == names and set(model._modules) == {
        'data_preprocessor',
        'architecture',
        'distiller',
    }
    losses(model, batch())
