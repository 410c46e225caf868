"""Which file a name means, what is read from it, and which configs distill."""

import subprocess

import pytest
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject

from kd_ext.algorithms import DetectionDistill
from kd_ext.build.configs import distills, find_config, read_config, type_name
from kd_ext.build.detector import model_config, student_config
from kd_ext.engine.exact_resume_hook import ExactResumeHook
from kd_ext.recipes import distill_config
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import fcos

MMDET = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
KINDS = ['kd_ext.DetectionDistill', 'DetectionDistill', 'kd_ext.algorithms.DetectionDistill', DetectionDistill]


class Mine(DetectionDistill):
    pass


@pytest.mark.parametrize('kind', KINDS)
def test_a_config_that_distills(kind):
    assert type_name(dict(type=kind)) == 'DetectionDistill'
    assert distills(dict(type=kind))


def test_a_lazy_type_distills():
    # not a parameter: pytest would look for ``__wrapped__`` in it for ever
    lazy = dict(type=LazyAttr('DetectionDistill', LazyObject('kd_ext.algorithms')))
    assert type_name(lazy) == 'DetectionDistill' and distills(lazy)


@pytest.mark.parametrize('model', [None, 'kd_ext.DetectionDistill', {}, dict(type='FCOS'), dict(type=dict)])
def test_a_config_that_does_not(model):
    assert not distills(model)


def test_a_subclass_distills():
    assert distills(dict(type=Mine))


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_is_distilled_twice(kind):
    cfg = Config(dict(model=dict(type=kind, student=fcos(), teacher=MMDET, teacher_ckpt='x.pth')))
    with pytest.raises(ValueError, match='one of a plain detector'):
        distill_config(cfg, MMDET, 'x.pth')


def test_a_pure_python_config_distills(tmp_path):
    path = tmp_path / 'lazy.py'
    path.write_text(
        'from kd_ext.algorithms import DetectionDistill\n'
        "model = dict(type=DetectionDistill, student=dict(type='FCOS', depth=1), teacher='x.py')\n"
    )
    assert distills(Config.fromfile(path).model)
    assert model_config(str(path), 'teacher')['type'] == 'FCOS'


def test_every_reader_finds_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ('configs/fcos_r18_shapes.py', 'kd_ext::fcos_r18_shapes.py', MMDET):
        assert find_config(name).is_file()
        assert dict(model_config(name, 'teacher'))['type'] == read_config(name).model.type == 'FCOS'


@pytest.mark.parametrize('name', ['mmocr::x/y.py', 'mmdett::fcos/x.py', 'mmdet::fcos/none.py', 'gone.py', 'a.pth'])
def test_no_reader_calls_pip(name, monkeypatch):
    monkeypatch.setattr(subprocess, 'check_call', None)
    for read in (find_config, read_config, lambda name: model_config(name, 'config')):
        with pytest.raises(FileNotFoundError, match='^Expected .* to be .*, but got .*'):
            read(name)


@pytest.mark.parametrize(
    'text, told',
    [
        ('model = dict(', 'SyntaxError'),
        ('model = unknown', 'NameError'),
        ("model = dict(a=1)['b']", 'KeyError'),
        ("_base_ = './gone.py'", 'gone.py'),
        ("custom_imports = dict(imports=['no_such_module'])", 'no_such_module'),
    ],
)
def test_a_config_that_cannot_be_read(tmp_path, text, told):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'teacher to be a config that can be read.*{told}'):
        model_config(str(path), 'teacher')


def test_the_folder_of_a_relative_path_is_named(tmp_path, monkeypatch):
    (tmp_path / 'teacher.py').touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f'In {tmp_path}: Did you mean: teacher.py'):
        find_config('techer.py', 'teacher')


def test_a_teacher_has_the_preprocessor_that_a_runner_gives_it():
    model = fcos()
    own = model.pop('data_preprocessor')
    found = model_config(dict(model=model, data_preprocessor=own, default_scope='mmdet'), 'teacher')
    assert found['data_preprocessor'] == own and found['_scope_'] == 'mmdet'
    other = dict(type='DetDataPreprocessor')
    found = model_config(dict(model=dict(fcos(), data_preprocessor=other), data_preprocessor=own), 'teacher')
    assert found['data_preprocessor'] == other


def test_student_config_leaves_a_plain_config():
    cfg = Config(dict(model=fcos(), custom_hooks=[dict(type='kd_ext.Any')]))
    before = cfg.pretty_text
    assert student_config(cfg).pretty_text == before


@pytest.mark.parametrize('form', ['model', 'whole', 'path'])
def test_student_config(form, tmp_path):
    student = fcos()
    if form == 'whole':
        student = dict(model=student)
    elif form == 'path':
        Config(dict(model=student)).dump(tmp_path / 'student.py')
        student = str(tmp_path / 'student.py')
    hooks = ('EMAHook', 'kd_ext.AnyHook', 'mmrazor.StopDistillHook', ExactResumeHook)
    cfg = student_config(
        Config(
            dict(
                model=dict(
                    type='kd_ext.DetectionDistill',
                    student=student,
                    teacher='not/there.py',
                    teacher_ckpt='not/there.pth',
                ),
                custom_hooks=[dict(type=kind) for kind in hooks],
            )
        )
    )
    assert cfg.model.to_dict() == fcos().to_dict()
    assert cfg.custom_hooks == [dict(type='EMAHook')]


def test_student_config_keeps_the_preprocessor():
    student = fcos()
    own = student.pop('data_preprocessor')
    cfg = student_config(
        Config(dict(model=dict(type='kd_ext.DetectionDistill', student=student, teacher='x', data_preprocessor=own)))
    )
    assert cfg.model.data_preprocessor == own
