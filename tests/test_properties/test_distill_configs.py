"""Whatever ``distill=`` holds: it trains a step, or a message says what not.

No torch error, KeyError or traceback of another library is to be seen.
"""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmrazor.models.architectures.connectors import __all__ as razor_connectors
from mmrazor.models.losses import __all__ as razor_losses
from torch import nn

from kd_ext import distill_config
from kd_ext.algorithms import DetectionDistill
from kd_ext.errors import is_ours
from kd_ext.losses import __all__ as own_losses
from kd_ext.recipes import METHODS
from tests.helpers.data_sets import ROOT
from tests.helpers.hypothesis_tries import tries
from tests.helpers.tiny_detectors import batch, build, faster_rcnn, fcos, losses

TINY = dict(fcos=fcos, faster_rcnn=faster_rcnn)
RAZOR = [f'mmrazor.{name}' for name in razor_losses]
OWN = [f'kd_ext.{name}' for name in own_losses if name.endswith('Loss')]
CONNECTORS = [
    'kd_ext.ConvBNConnector',
    'kd_ext.RunningMarginConnector',
    *(f'mmrazor.{name}' for name in razor_connectors),
]
OTHERS = [
    'mmdet.FPN',
    'mmdet.FCOS',
    'kd_ext.Connector',
    'kd_ext.Distiller',
    'kd_ext.DetectionDistill',
    'nowhere.Loss',
    'RCKALoss',
    'PKDLoss',
    'mmseg.FCNHead',
    'kd_ext.',
    '.',
    '',
    nn.MSELoss,
    nn.L1Loss,
    nn.ReLU,
    dict,
    len,
    nn.MSELoss(),
]

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([0.0, 0.5, -1.0, 1e308, float('nan'), float('inf')]),
    st.sampled_from(['', 'neck', 'online', 'x.y', '3', 'random', '\n']),
    st.sampled_from(
        [(), [], {}, (0,), [0, 1], ((0, 1),), (0, 'a'), {1: 2}, b'neck', object(), torch.zeros(2), dict(type='ReLU')]
    ),
)


@st.composite
def mostly(draw, right, wrong=junk, one_in=12):
    """What is right, and now and then what is not."""
    return draw(wrong if draw(st.integers(1, one_in)) == one_in else right)


MAPS = ['backbone', 'neck', 'pre_relu', 'backbone.layer2', 'neck']
PLACES = dict(
    fcos=dict(maps=[*MAPS, 'bbox_head.cls_convs.0', 'bbox_head.conv_cls']),
    faster_rcnn=dict(maps=[*MAPS, 'rpn_head.rpn_conv']),
)
for places in PLACES.values():
    places['regions'] = ['embedding', 'logits']
    places['others'] = [
        'backbone.bn1',
        'backbone.relu',
        'bbox_head',
        'neck.fpn_convs',
        'neck.fpn_convs.0',
        'rpn_head',
        'roi_head',
        'roi_head.bbox_head',
        'roi_head.bbox_head.shared_fcs.1',
        'data_preprocessor',
        'training',
        'nek',
        'neck.',
        '.neck',
        'backbone.layer1.0.conv1',
        'forward',
        'bbox_head.scales',
        'bbox_head.loss_cls',
    ]
BY_CLASS = ['kd_ext.NDLoss', 'kd_ext.NCKDLoss']
connectors = mostly(
    st.builds(
        lambda kind, more: dict(type=kind, **more),
        mostly(st.sampled_from(CONNECTORS), st.sampled_from([*OWN, *OTHERS])),
        mostly(st.just({}), st.sampled_from([dict(norm_cfg=dict(type='BN')), dict(kernel_size=3), dict(x=1)])),
    )
)
schedules = mostly(
    st.dictionaries(
        st.sampled_from(['begin', 'warmup', 'decay', 'end', 'final', 'by_epoch', 'x']),
        mostly(st.sampled_from([0, 2, 10, True, 'linear', 'cosine'])),
        max_size=3,
    )
)
levels = mostly(
    st.lists(
        mostly(st.integers(0, 2), st.one_of(st.integers(-2, 9), st.tuples(st.integers(-1, 3), st.integers(-1, 3)))),
        min_size=1,
        max_size=3,
    )
)
BOTH = dict(
    levels=levels,
    connector=mostly(connectors, st.sampled_from(['a', 'b', 'c'])),
    schedule=schedules,
    balance=mostly(st.just(0.2)),
    loss_weight=mostly(st.floats(0, 1e6)),
)
SETTINGS = dict(
    maps=dict(
        BOTH,
        teacher_connector=connectors,
        level_weights=mostly(st.lists(mostly(st.floats(0, 3)), min_size=1, max_size=3)),
    ),
    regions=dict(BOTH, stage=mostly(st.integers(0, 2)), class_means=mostly(st.just('online'))),
    others=dict(BOTH, teacher=mostly(st.just('teacher'))),
)
ARGUMENTS = [
    'patch_size',
    'center',
    'inter_weight',
    'tau',
    'use_sigmoid',
    'num_iters',
    'stage_weights',
    'relative',
    'num_classes',
    'width',
    'momentum',
    'x',
    3,
    'mid_channels',
    'in_channels',
    'reduction',
    'class_balanced',
    'include_background',
    'resize_stu',
]


@st.composite
def entries(draw, detector):
    """An entry that may be right, with settings and arguments of any kind."""
    kind = draw(st.sampled_from([*['maps'] * 5, *['regions'] * 5, *['others'] * 2]))
    types = st.sampled_from([*OWN, *RAZOR])
    if kind == 'regions':
        types = st.sampled_from([*BY_CLASS * 3, *OWN])
    cfg = dict(
        type=draw(mostly(types, st.one_of(junk, st.sampled_from(OTHERS)), 30)),
        at=draw(mostly(st.sampled_from(PLACES[detector][kind]), one_in=30)),
    )
    if str(cfg['type']) in BY_CLASS and cfg['at'] == 'logits':
        cfg['at'] = draw(mostly(st.just('embedding'), st.just('logits')))
    if cfg['type'] == 'kd_ext.RCKALoss':
        cfg['patch_size'] = 2
    table = SETTINGS[kind]
    for key in draw(st.lists(st.sampled_from(sorted(table)), max_size=2, unique=True)):
        cfg[key] = draw(table[key])
    if draw(st.integers(0, 7)) == 7:
        cfg[draw(st.sampled_from(ARGUMENTS))] = draw(junk)
    if draw(st.integers(0, 29)) == 29:
        cfg.pop(draw(st.sampled_from(['type', 'at'])))
    return cfg


names = mostly(
    st.sampled_from(['a', 'b', 'c']),
    st.sampled_from(
        ['rc-ka', 'loss', 'a.b', '', 'keys', 'terms', 'forward', 'training', 3, None, 'class', 'ü', 'None']
    ),
    20,
)


def configs(detector):
    """``distill=`` for a detector."""
    entry = entries(detector)
    return mostly(
        st.dictionaries(names, entry, min_size=1, max_size=3),
        st.one_of(st.dictionaries(names, mostly(entry), max_size=2), junk),
        20,
    )


@functools.cache
def pair(kind):
    """A tiny student and teacher of one kind, built once."""
    teacher = build(TINY[kind](8)).eval().requires_grad_(False)
    return build(TINY[kind]()), teacher


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def modes(model):
    return [module.training for module in model.modules()]


def tried(make, step=True):
    """Builds and trains a step; what is raised has to be a message."""
    try:
        model = make()
        if step:
            terms = losses(model.train(), batch(count=2))
            total, _ = model.parse_losses(terms)
            assert total.isfinite()
            total.backward()
    except Exception as error:
        if not is_ours(error):
            raise
        return str(error)
    return None


@pytest.mark.parametrize('kind', TINY)
@tries(200)
@given(data=st.data())
def test_any_distill(kind, data):
    distill = data.draw(configs(kind))
    student, teacher = pair(kind)
    student.train()
    before = [(modes(model), hooks(model)) for model in pair(kind)]
    MessageHub.get_current_instance().runtime_info.clear()
    tried(lambda: DetectionDistill(student, teacher, distill=distill))
    # whatever happened, the models are what they were
    assert before == [(modes(model), hooks(model)) for model in pair(kind)]
    assert all(p.grad is None for p in teacher.parameters())
    student.zero_grad()


MODEL_KEYS = [
    'type',
    'backbone',
    'backbone.type',
    'backbone.depth',
    'backbone.out_indices',
    'neck.in_channels',
    'neck.type',
    'bbox_head.num_classes',
    'bbox_head.loss_cls',
    'train_cfg',
    'data_preprocessor',
    'data_preprocessor.type',
    'extra',
]


@st.composite
def models(draw):
    """A detector's config with something wrong, or no config at all."""
    if draw(st.booleans()):
        return draw(
            st.one_of(
                junk,
                st.sampled_from(
                    [
                        'mmdet::fcos/nowhere.py',
                        'nowhere.py',
                        'mmseg::x.py',
                        '::',
                        str(ROOT),
                        str(ROOT / 'README.md'),
                        nn.Conv2d(1, 1, 1),
                        dict(model=3),
                        dict(model=dict()),
                        dict(type='mmdet.ResNet', depth=18),
                    ]
                ),
            )
        )
    cfg = fcos().to_dict()
    *path, key = draw(st.sampled_from(MODEL_KEYS)).split('.')
    place = cfg
    for part in path:
        place = place[part]
    if draw(st.booleans()):
        place[key] = draw(junk)
    else:
        place.pop(key, None)
    return cfg


ALGORITHM = dict(
    student=models(),
    teacher=models(),
    allow_teacher_mismatch=junk,
    teacher_ckpt=st.one_of(junk, st.sampled_from(['nowhere.pth', str(ROOT), str(ROOT / 'README.md'), 'x://y'])),
    classes=st.one_of(
        junk, st.dictionaries(st.sampled_from(['student', 'teacher', 'aliases', 'x']), junk, max_size=2)
    ),
    distil=junk,
)


@tries(150)
@given(data=st.data(), key=st.sampled_from(list(ALGORITHM)))
def test_any_student_and_teacher(data, key):
    student, teacher = pair('fcos')
    cfg = dict(
        type='kd_ext.DetectionDistill',
        student=student,
        teacher=teacher,
        distill=dict(a=dict(type='kd_ext.NDLoss', at='embedding')),
    )
    if key == 'teacher_ckpt':
        cfg['teacher'] = fcos()
    if key == 'teacher':
        cfg['teacher_ckpt'] = 'random'
    cfg[key] = data.draw(ALGORITHM[key])
    tried(lambda: MODELS.build(cfg), step=False)


methods = mostly(st.sampled_from(list(METHODS)), st.text(max_size=6))
factors = mostly(
    st.floats(0.01, 100.0).map(str),
    st.one_of(
        st.floats().map(str),
        st.text(max_size=4),
        st.sampled_from(['', '0', '-1', 'inf', 'nan', '1e400', '1_0', ' 2', '0x1', '1,5']),
    ),
)


@tries(300)
@given(
    chosen=mostly(
        st.lists(
            mostly(
                st.one_of(
                    methods,
                    st.tuples(methods, factors).map(lambda pair: f'{pair[0]}:{pair[1]}'),
                    st.tuples(methods, methods).map(lambda pair: f'{pair[0]}@{pair[1]}'),
                )
            ),
            max_size=3,
        )
    )
)
def test_any_methods(chosen):
    cfg = Config(dict(model=fcos()))

    def make():
        distill_config(cfg, str(ROOT / 'configs/fcos_r18_shapes.py'), 'random', chosen)
        for entry in cfg.model.distill.values():
            assert 0 < entry['loss_weight'] < float('inf')

    tried(make, step=False)


@tries(100)
@given(
    cfg=st.one_of(junk, st.just(dict(model=fcos())), st.dictionaries(st.just('model'), junk)),
    teacher=junk,
    checkpoint=junk,
)
def test_any_config(cfg, teacher, checkpoint):
    tried(lambda: distill_config(cfg, teacher, checkpoint), step=False)
