"""Plausible mistakes, each with the whole of what a user reads."""

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
KNOWN = ', '.join(METHODS)
NEITHER_LOADED = (
    ' Is it the checkpoint of another architecture, or of another number of '
    'classes? Correct teacher or teacher_ckpt; to go on all the same, set '
    'allow_teacher_mismatch=True.'
)


def told(call, *args, **kwargs):
    """The text of the error that a call ends in."""
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as info:
        call(*args, **kwargs)
    return message(info.value)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Checkpoints of the student and of a detector of another kind."""
    folder = tmp_path_factory.mktemp('weights')
    for name, cfg in dict(student=fcos(), other=tiny.faster_rcnn()).items():
        torch.save(dict(state_dict=tiny.build(cfg).state_dict()), folder / f'{name}.pth')
    return folder


@pytest.mark.parametrize(
    'methods,text',
    [
        (['rkca'], f"Expected a distillation method to be one of {KNOWN}, but got 'rkca'. Did you mean: rcka?"),
        (
            ['rcka:half'],
            "Expected the factor of 'rcka:half' to be a number > 0, "
            "but got 'half'. It multiplies the usual weight: rcka:0.5. Leave a "
            'method out to do without it.',
        ),
        (
            ['rcka:0'],
            "Expected the factor of 'rcka:0' to be a number > 0, but "
            "got '0'. It multiplies the usual weight: rcka:0.5. Leave a method out "
            'to do without it.',
        ),
        (
            ['rcka:-1'],
            "Expected the factor of 'rcka:-1' to be a number > 0, but "
            "got '-1'. It multiplies the usual weight: rcka:0.5. Leave a method out "
            'to do without it.',
        ),
        (
            ['rcka', 'rcka:2'],
            'Expected methods to be without a term twice, but '
            "got rcka again in 'rcka:2'. Name each once; kd++ holds kd and nd, "
            'reviewkd++ holds reviewkd and nd.',
        ),
        (
            ['kd++', 'nd'],
            'Expected methods to be without a term twice, but got '
            "nd again in 'nd'. Name each once; kd++ holds kd and nd, reviewkd++ "
            'holds reviewkd and nd.',
        ),
        ('rcka', f"Expected methods to be a list of at least one method, but got 'rcka'. Known: {KNOWN}."),
    ],
)
def test_methods(methods, text):
    assert told(distill_entries, methods) == text


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
    'argv,text',
    [
        (
            ['--distill', 'rcka'],
            'Expected --teacher to be given as well, but got '
            'none. A distillation takes --teacher CONFIG --teacher-ckpt WEIGHTS '
            '[--distill METHOD ...].',
        ),
        (
            ['--teacher', TEACHER],
            'Expected --teacher-ckpt to be given as well, '
            'but got none. A distillation takes --teacher CONFIG --teacher-ckpt '
            'WEIGHTS [--distill METHOD ...].',
        ),
        (
            ['--teacher', f'{ROOT}/configs/fcos_r18-haf_shapes.py', '--teacher-ckpt', 'https://x/y.pth'],
            'Expected --teacher to be an existing file (.py, '
            f".json, .yaml, .yml), but got '{ROOT}/configs/fcos_r18-haf_shapes.py'. "
            f'In {ROOT}/configs: Did you mean: fcos_r18-half_shapes.py, '
            'fcos_r18_shapes.py, fcos_r18-quarter_shapes.py, '
            'nd_fcos_r18-half_r18-quarter_shapes.py, '
            'rcka_fcos_r18-half_r18-quarter_shapes.py?',
        ),
        (
            ['--teacher', TEACHER, '--teacher-ckpt', 'gone/x.pth'],
            'Expected --teacher-ckpt to be an existing file or a URL, but got '
            "'gone/x.pth'. There is no checkpoint in gone.",
        ),
    ],
)
def test_command_line(argv, text):
    assert told(command_line, *argv) == text


def test_options_in_each_others_place(weights):
    text = told(command_line, '--teacher', weights / 'other.pth', '--teacher-ckpt', TEACHER)
    assert text == (
        'Expected --teacher to be an existing file (.py, .json, .yaml, '
        f".yml), but got '{weights}/other.pth'. There is no config in "
        f'{weights}.'
    )
    assert told(distill, teacher_ckpt=TEACHER) == (
        f'Expected teacher_ckpt to be a checkpoint, but got the config '
        f"'{TEACHER}'. The config belongs to teacher, the .pth file here."
    )
    text = told(distill, teacher=str(weights / 'other.pth'))
    assert re.search(r"teacher to be an existing file \(\.py, .*other\.pth'\. There is no config in", text)


def test_a_teacher_that_is_no_path():
    cfg = Config.fromfile(CONFIG)
    assert told(distill_config, cfg, Config.fromfile(TEACHER), 'x.pth') == (
        'Expected teacher to be a config path or pkg::config, but got a '
        "Config. Save a config with cfg.dump('teacher.py') and name that "
        'file.'
    )


def test_no_checkpoint(tmp_path):
    gone = str(tmp_path / 'gone.pth')
    assert told(distill, teacher_ckpt=gone) == (
        f"Expected teacher_ckpt to be a file or URL, but got '{gone}'. "
        'Download or train it first, or correct the path.'
    )
    assert told(distill, teacher_ckpt=None) == (
        'Expected teacher_ckpt to be the path or URL of its weights, but got '
        'None. An untrained teacher teaches nothing; where that is meant (a '
        "test), pass teacher_ckpt='random'."
    )


def test_checkpoint_of_the_student(weights):
    assert told(distill, teacher_ckpt=str(weights / 'student.pth')) == (
        'Expected teacher_ckpt to be the weights of the teacher FCOS, but '
        f"got '{weights}/student.pth' with 50 keys matched, 0 missing, 0 "
        'unexpected, 103 of another shape (reshaped: backbone.conv1.weight '
        '((4, 3, 7, 7) in the file, (8, 3, 7, 7) in the model)).' + NEITHER_LOADED
    )


def test_checkpoint_of_another_architecture(weights):
    text = told(distill, teacher=tiny.faster_rcnn(8), teacher_ckpt=str(weights / 'student.pth'))
    assert re.fullmatch(
        r'Expected teacher_ckpt to be the weights of the teacher FasterRCNN, '
        rf"but got '{weights}/student\.pth' with \d+ keys matched, \d+ "
        r'missing, \d+ unexpected, \d+ of another shape \(missing: .*, '
        r'\.\.\.; unexpected: .*, \.\.\.; reshaped: .*\)\.' + re.escape(NEITHER_LOADED),
        text,
    )


@pytest.mark.parametrize(
    'role,key,noun,remedy',
    [
        ('teacher.big', 'teacher_ckpt.big', 'teacher', NEITHER_LOADED),
        ('student', 'the checkpoint of the student', 'student', NEITHER_LOADED.partition(' Correct')[0]),
    ],
)
def test_messages_say_whose_checkpoint_it_is(weights, role, key, noun, remedy):
    path = str(weights / 'student.pth')
    text = told(build_teacher, fcos(8), path, role=role)
    assert text.startswith(f'Expected {key} to be the weights of the {noun} FCOS, but got ')
    assert text.endswith(f'in the model)).{remedy}')
    assert told(build_teacher, fcos(), None, role=role).startswith(
        f'Expected {key} to be the path or URL of its weights'
    )
    assert told(build_teacher, 'gone.py', path, role=role).startswith(f'Expected {role} to be an existing file (.py')


def test_a_config_of_no_detector():
    data = str(ROOT / 'configs/_base_/datasets/bccd_detection.py')
    assert told(distill, teacher=data) == (
        f"Expected teacher to be a config with a model, but got '{data}' without one."
    )
    assert told(distill, teacher=dict(model=dict(depth=18))) == (
        'Expected teacher to be a config of a detector, but got one whose model has no type.'
    )
    assert told(distill, teacher=dict(type='ResNet', depth=18)) == (
        'Expected teacher to be a detector, a BaseModel of MMEngine, but got a ResNet.'
    )


def test_a_teacher_of_another_task():
    pytest.importorskip('mmseg', reason='segmentation is an extra')
    teacher = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    assert told(distill, teacher=teacher) == (
        "Expected at='neck' to be a part of the teacher EncoderDecoder, but "
        'got one made of backbone, decode_head, auxiliary_head. Tap another '
        'part, or take another teacher.'
    )


def test_a_config_that_distills_means_its_student():
    cfg = ROOT / 'configs/rcka_fcos_r18-half_r18-quarter_shapes.py'
    model = distill(teacher=str(cfg))
    own = Config.fromfile(cfg).model.student
    assert model.teacher.bbox_head.num_classes == own.bbox_head.num_classes
    assert model.teacher.backbone.conv1.out_channels == (own.backbone.base_channels)


@pytest.mark.parametrize(
    'changes,text',
    [
        (
            dict(loss_weight=-1.0),
            'Expected loss_weight to be a finite number >= '
            '0, but got -1.0. A term is switched off by weight 0 or by removing '
            'it.',
        ),
        (
            dict(loss_weight='10'),
            'Expected loss_weight to be a finite number >= '
            "0, but got '10'. A term is switched off by weight 0 or by removing "
            'it.',
        ),
        (
            dict(at='nek'),
            "Expected at='nek' to be a tap (backbone, neck, "
            'embedding, logits, pre_relu) or the path of a module of the student '
            'FCOS, but got neither. Did you mean: neck?',
        ),
        (
            dict(patchsize=4),
            'Expected distill.rcka to be arguments of RCKALoss('
            'patch_size: int = 16, intra_weight: float = 1.0, inter_weight: float = '
            '0.0, center: bool = True, loss_weight: float = 1.0) -> None, but got '
            'TypeError: RCKALoss.__init__() got an unexpected keyword argument '
            "'patchsize'.",
        ),
        (
            dict(type='kd_ext.RCKLoss'),
            'Expected distill.rcka.type to be '
            "registered, but got 'kd_ext.RCKLoss'. Did you mean: "
            'kd_ext.RCKALoss, kd_ext.NCKDLoss, kd_ext.NDLoss, kd_ext.ReviewKDLoss, '
            'kd_ext.LogitCKALoss?',
        ),
    ],
)
def test_entries(changes, text):
    assert told(distill, rcka=rcka(**changes)) == text


@pytest.mark.parametrize(
    'name,entry,text',
    [
        (
            'DETR',
            dict(type='kd_ext.LogitKLLoss', at='logits'),
            'Expected distill.x to be read where teacher and student have regions '
            'in common, but got the query regions of DETRHead and the query regions '
            'of DETRHead. kd_ext.NCKDLoss and kd_ext.NDLoss work there; others at '
            "'neck' and 'backbone' do.",
        ),
        (
            'YOLOF',
            dict(type='kd_ext.LipschitzLoss', at='backbone'),
            'Expected distill.x to be read at levels of which 2 or more can be '
            "paired by stride, but got the student's strides 32 and the teacher's "
            'strides 32. Name pairs of a student and a teacher level, '
            'levels=((0, 1), (1, 2)), or tap another place.',
        ),
        (
            'CornerNet',
            dict(type='kd_ext.RCKALoss', at='neck'),
            "Expected at='neck' to be a part of the student CornerNet, but got one "
            'made of backbone, bbox_head. Tap another part, or take another '
            'student.',
        ),
    ],
)
def test_a_method_that_the_detector_cannot_do(name, entry, text):
    assert told(distill, zoo.detector(name), zoo.detector(name, 8), x=entry) == text
