"""Odd checkpoints and models of teachers: read where they can be, refused with a reason where not."""

import pytest
import torch

from kd_ext.teachers.build import build_teacher
from tests.helpers.tiny_detectors import build, fcos


def saved(folder, state=None, **content):
    path = folder / 'teacher.pth'
    torch.save(dict(state_dict=build(fcos()).state_dict() if state is None else state, **content), path)
    return str(path)


@pytest.mark.parametrize(
    'meta', ['text', 3, [1], None, dict(dataset_meta='coco'), dict(dataset_meta=dict(classes='cat')), dict(CLASSES=7)]
)
def test_meta_that_tells_no_classes(tmp_path, meta):
    assert build_teacher(fcos(), saved(tmp_path, meta=meta)).class_names is None


def test_class_names_of_either_form(tmp_path):
    for meta in (dict(dataset_meta=dict(classes=('a', 'b', 'c'))), dict(CLASSES=['a', 'b', 'c'])):
        assert build_teacher(fcos(), saved(tmp_path, meta=meta)).class_names == ['a', 'b', 'c']


@pytest.mark.parametrize('key', ['backbone.bn1.running_var', 'backbone.bn1.running_mean', 'backbone.conv1.weight'])
def test_nan_in_weights_and_buffers(tmp_path, key):
    state = build(fcos()).state_dict()
    state[key].view(-1)[0] = float('nan')
    with pytest.raises(ValueError, match=f'teacher_ckpt to be of finite weights.*1 of .* values of {key}'):
        build_teacher(fcos(), saved(tmp_path, state))


def test_model_without_weights():
    with pytest.raises(ValueError, match='teacher to be a model with weights.*meta'):
        build_teacher(build(fcos()).to('meta'), None)


@pytest.mark.parametrize('text,fault', [('model = dict(', 'SyntaxError'), ('model = nothing', 'NameError')])
def test_config_with_a_fault(tmp_path, text, fault):
    (tmp_path / 'teacher.py').write_text(text)
    with pytest.raises(ValueError, match=f'Expected teacher to be a config that can be read.*{fault}'):
        build_teacher(str(tmp_path / 'teacher.py'), 'random')
