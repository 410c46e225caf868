"""Plausible mistakes: each message names the setting, what came, and the remedy."""

import re

import pytest
import torch
from mmengine.config import Config

from kd_ext import distill_config, distill_entries
from kd_ext.cli import train
from kd_ext.cli.config import training_config
from kd_ext.cli.errors import message
from kd_ext.recipes import METHODS
from kd_ext.teachers.build import build_teacher
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import distill, fcos, rcka

CONFIG = ROOT / 'configs' / 'fcos_r18-quarter_shapes.py'
TEACHER = str(ROOT / 'configs' / 'fcos_r18-half_shapes.py')
ALLOW = 'allow_teacher_mismatch=True'


def told(call, *args, **kwargs):
    """The text of the error that a call ends in."""
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as info:
        call(*args, **kwargs)
    text = message(info.value)
    assert re.match('Expected .+ to be .+, but got .+\\.', text, re.DOTALL), text
    return text


def says(text, *parts):
    """That a message holds these parts, in their order."""
    assert re.search('.*'.join(map(re.escape, parts)), text, re.DOTALL), text


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Checkpoints of the student and of a detector of another kind."""
    folder = tmp_path_factory.mktemp('weights')
    for name, cfg in dict(student=fcos(), other=tiny.faster_rcnn()).items():
        torch.save(dict(state_dict=tiny.build(cfg).state_dict()), folder / f'{name}.pth')
    return folder


@pytest.mark.parametrize(
    'methods,parts',
    [
        (['rkca'], ('a distillation method', *METHODS, "'rkca'", 'Did you mean: rcka?')),
        (['rcka:half'], ("the factor of 'rcka:half'", '> 0', 'rcka:0.5')),
        (['rcka:0'], ("the factor of 'rcka:0'", '> 0', 'Leave a method out')),
        (['rcka:-1'], ("the factor of 'rcka:-1'", '> 0', "'-1'")),
        (['rcka', 'rcka:2'], ('methods', "rcka again in 'rcka:2'", 'Name each once')),
        (['kd++', 'nd'], ('methods', "nd again in 'nd'", 'kd++ holds kd and nd')),
        ('rcka', ('methods', 'list', "'rcka'", 'Known', *METHODS)),
    ],
)
def test_methods(methods, parts):
    says(told(distill_entries, methods), *parts)


def command_line(*argv):
    """What tools/train.py makes of its arguments: the config."""
    return training_config(train.parse_args([str(arg) for arg in (CONFIG, *argv)], None))


def test_options_of_the_plain_config_and_of_the_distillation(tmp_path):
    weights = tmp_path / 'weights.pth'
    weights.write_bytes(b'not read here')
    cfg = command_line(
        '--teacher',
        CONFIG,
        '--teacher-ckpt',
        weights,
        '--distill',
        'rcka',
        '--cfg-options',
        'model.backbone.frozen_stages=2',
        'model.distill.rcka.levels=0,1',
        'model.student.neck.num_outs=4',
    )
    assert cfg.model.student.backbone.frozen_stages == 2
    assert cfg.model.student.neck.num_outs == 4
    assert cfg.model.distill.rcka.levels == [0, 1]
    assert 'backbone' not in cfg.model


@pytest.mark.parametrize(
    'argv,parts',
    [
        (['--distill', 'rcka'], ('--teacher ', '--teacher CONFIG --teacher-ckpt WEIGHTS')),
        (['--teacher', TEACHER], ('--teacher-ckpt ', '--teacher CONFIG --teacher-ckpt WEIGHTS')),
        (
            ['--teacher', f'{ROOT}/configs/fcos_r18-haf_shapes.py', '--teacher-ckpt', 'https://x/y.pth'],
            ('--teacher ', 'haf_shapes.py', f'In {ROOT}/configs: Did you mean: fcos_r18-half_shapes.py'),
        ),
        (['--teacher', TEACHER, '--teacher-ckpt', 'gone/x.pth'], ('--teacher-ckpt ', "'gone/x.pth'", 'in gone')),
    ],
)
def test_command_line(argv, parts):
    says(told(command_line, *argv), *parts)


def test_options_in_each_others_place(weights):
    swapped = told(command_line, '--teacher', weights / 'other.pth', '--teacher-ckpt', TEACHER)
    says(swapped, '--teacher ', '.py', f'{weights}/other.pth', 'no config in')
    says(told(distill, teacher_ckpt=TEACHER), 'teacher_ckpt', f'the config {TEACHER!r}', 'belongs to teacher')
    says(told(distill, teacher=str(weights / 'other.pth')), 'teacher ', '.py', 'other.pth', 'no config in')


def test_a_teacher_that_is_no_path():
    text = told(distill_config, Config.fromfile(CONFIG), Config.fromfile(TEACHER), 'x.pth')
    says(text, 'teacher', 'a Config', "cfg.dump('teacher.py')")


def test_no_checkpoint(tmp_path):
    gone = str(tmp_path / 'gone.pth')
    says(told(distill, teacher_ckpt=gone), 'teacher_ckpt', gone, 'correct the path')
    says(told(distill, teacher_ckpt=None), 'teacher_ckpt', 'None', "teacher_ckpt='random'")


def test_checkpoint_of_the_student(weights):
    text = told(distill, teacher_ckpt=str(weights / 'student.pth'))
    shapes = '(4, 3, 7, 7) in the file, (8, 3, 7, 7) in the model'
    says(text, 'teacher_ckpt', 'the teacher FCOS', 'student.pth', 'reshaped', 'conv1.weight', shapes, ALLOW)


def test_checkpoint_of_another_architecture(weights):
    text = told(distill, teacher=tiny.faster_rcnn(8), teacher_ckpt=str(weights / 'student.pth'))
    says(text, 'teacher_ckpt', 'FasterRCNN', 'student.pth', 'missing: ', 'unexpected: ', 'reshaped: ', ALLOW)


@pytest.mark.parametrize(
    'role,key,noun',
    [('teacher.big', 'teacher_ckpt.big', 'teacher'), ('student', 'the checkpoint of the student', 'student')],
)
def test_messages_say_whose_checkpoint_it_is(weights, role, key, noun):
    path = str(weights / 'student.pth')
    text = told(build_teacher, fcos(8), path, role=role)
    says(text, f'Expected {key} ', f'the {noun} FCOS', 'another architecture')
    assert (ALLOW in text) == (noun == 'teacher')
    says(told(build_teacher, fcos(), None, role=role), f'Expected {key} ')
    says(told(build_teacher, 'gone.py', path, role=role), f'Expected {role} ', "'gone.py'")


def test_a_config_of_no_detector():
    data = str(ROOT / 'configs/_base_/datasets/bccd_detection.py')
    says(told(distill, teacher=data), 'teacher', 'a config with a model', data)
    says(told(distill, teacher=dict(model=dict(depth=18))), 'teacher', 'no type')
    says(told(distill, teacher=dict(type='ResNet', depth=18)), 'teacher', 'a detector', 'a ResNet')


def test_a_teacher_of_another_task():
    pytest.importorskip('mmseg', reason='segmentation is an extra')
    teacher = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    says(told(distill, teacher=teacher), "at='neck'", 'EncoderDecoder', 'backbone', 'another teacher')


def test_a_config_that_distills_means_its_student():
    cfg = ROOT / 'configs/rcka_fcos_r18-half_r18-quarter_shapes.py'
    model = distill(teacher=str(cfg))
    own = Config.fromfile(cfg).model.student
    assert model.teacher.bbox_head.num_classes == own.bbox_head.num_classes
    assert model.teacher.backbone.conv1.out_channels == (own.backbone.base_channels)


@pytest.mark.parametrize(
    'changes,parts',
    [
        (dict(loss_weight=-1.0), ('loss_weight', '>= 0', '-1.0')),
        (dict(loss_weight='10'), ('loss_weight', '>= 0', "'10'")),
        (dict(loss_weight=10**400), ('loss_weight', 'finite')),
        (dict(at='nek'), ("at='nek'", 'a tap', 'FCOS', 'Did you mean: neck?')),
        (dict(patchsize=4), ('distill.rcka', 'RCKALoss', 'patch_size', "'patchsize'")),
        (dict(type='kd_ext.RCKLoss'), ('distill.rcka', 'type', 'kd_ext.RCKLoss', 'Did you mean: kd_ext.RCKALoss')),
    ],
)
def test_entries(changes, parts):
    says(told(distill, rcka=rcka(**changes)), *parts)


@pytest.mark.parametrize(
    'name,entry,parts',
    [
        ('DETR', dict(type='kd_ext.LogitKLLoss', at='logits'), ('distill.x', 'DETRHead', "at 'neck' and 'backbone'")),
        ('YOLOF', dict(type='kd_ext.LipschitzLoss', at='backbone'), ('distill.x', '2 or more', '32', 'levels=')),
        ('CornerNet', dict(type='kd_ext.RCKALoss', at='neck'), ("at='neck'", 'CornerNet', 'Tap another part')),
    ],
)
def test_a_method_that_the_detector_cannot_do(name, entry, parts):
    says(told(distill, zoo.detector(name), zoo.detector(name, 8), x=entry), *parts)
