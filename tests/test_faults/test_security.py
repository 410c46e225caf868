"""No file that is read runs code, unless the environment says so."""

import ast
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from kd_ext.class_means.partials import Partials
from kd_ext.class_means.stored import FORMAT, load_class_means
from kd_ext.cli.errors import message
from kd_ext.errors import TRUST
from tests.helpers import short_trainings as training
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import build, distill, fcos

# these follow torch's own default, so that the option holds for them as well
FOLLOW_TORCH = ('doctor_checks.py', 'guarded_loading.py')
SOURCES = sorted([*(ROOT / 'kd_ext').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')])


class Call:
    """Unpickles to what a function returns."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Pickle takes callables alone for functions."""


def _history(evil):
    history = HistoryBuffer([1.0], [1])
    history.extra = evil
    return history


# ways to hide what touches the marker; each is a checkpoint's content
PLACES = {
    'weight': lambda evil: {'backbone.conv1.weight': evil},
    'meta': lambda evil: dict(state_dict={'a': torch.zeros(1)}, meta=dict(dataset_meta=evil)),
    'log history': lambda evil: dict(state_dict={'a': torch.zeros(1)}, message_hub=_history(evil)),
    'array': lambda evil: dict(state_dict={'a': torch.zeros(1)}, x=np.array([evil], dtype=object)),
    'key': lambda evil: {evil: torch.zeros(1)},
    'whole': lambda evil: evil,
}
CALLS = {
    'os.system': lambda path: Call(os.system, f'touch {path}'),
    'exec': lambda path: Call(exec, f'open({str(path)!r}, "w")'),
    'open': lambda path: Call(open, str(path), 'w'),
    'Path.touch': lambda path: Call(Path.touch, path),
    # the builtin has a stand-in among the names that are let through
    'getattr': lambda path: Call(Call(getattr, HistoryBuffer, '__init__'), f'touch {path}'),
}


def _legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _protocol_4(content, path):
    torch.save(content, path, pickle_protocol=4)


def _pickle(content, path):
    path.write_bytes(pickle.dumps(content))


WRITERS = dict(zip=torch.save, legacy=_legacy, protocol_4=_protocol_4, pickle=_pickle)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'marker'


@pytest.fixture
def evil(tmp_path, marker):
    """Writes a checkpoint that touches the marker where its code is run."""

    def write(name='evil.pth', place='meta', call='Path.touch', save='zip'):
        path = tmp_path / name
        WRITERS[save](PLACES[place](CALLS[call](marker)), path)
        return str(path)

    return write


def test_the_file_would_run_code(evil, marker):
    torch.load(evil(), weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize('save', WRITERS)
@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('place', PLACES)
def test_every_form_is_refused(evil, marker, place, call, save):
    path = evil('x.pth', place, call, save)
    with pytest.raises(pickle.UnpicklingError) as info:
        torch.load(path)
    with pytest.raises(ValueError, match='class_means.py') as of_means:
        load_class_means(path)
    for text in (message(info.value), str(of_means.value)):
        assert 'weights_only' not in text  # torch advises to run the code
    assert TRUST in message(info.value)
    assert not marker.exists()


@pytest.mark.parametrize('save', WRITERS)
@pytest.mark.parametrize('place', PLACES)
def test_teacher(evil, marker, place, save):
    with pytest.raises(ValueError, match=f'(?s)teacher_ckpt.*{TRUST}'):
        distill(teacher_ckpt=evil('t.pth', place, save=save))
    assert not marker.exists()


def test_the_option_is_what_it_takes(evil, marker, monkeypatch):
    monkeypatch.setenv(*TRUST.split('='))
    state = build(fcos(8)).state_dict()
    path = evil()
    torch.save(dict(state_dict=state, meta=dict(epoch=Call(Path.touch, marker))), path)
    distill(teacher_ckpt=path)
    assert marker.exists()


@pytest.mark.parametrize('name', ['means.pth', 'means.json'])
def test_class_means(evil, marker, name):
    with pytest.raises(ValueError, match='Expected class_means to be'):
        distill(nd=dict(type='kd_ext.NDLoss', at='embedding', class_means=evil(name)))
    assert not marker.exists()


def test_class_means_in_their_own_format(tmp_path, marker):
    path = tmp_path / 'means.pth'
    torch.save(
        dict(format=FORMAT, means=torch.ones(4, 2), counts=None, classes=None, info=Call(Path.touch, marker)), path
    )
    with pytest.raises(ValueError, match='tools/class_means.py'):
        load_class_means(path)
    assert not marker.exists()


@pytest.mark.parametrize('means', [None, [[1.0, 2.0]], torch.ones(3), torch.ones(3, 2, dtype=torch.long)])
def test_class_means_of_another_shape(tmp_path, means):
    torch.save(dict(format=FORMAT, means=means, counts=None, classes=None, info={}), tmp_path / 'means.pth')
    with pytest.raises(ValueError, match='means to be a'):
        load_class_means(tmp_path / 'means.pth')


def test_trust_is_not_for_class_means(evil, marker, monkeypatch):
    monkeypatch.setenv(*TRUST.split('='))
    with pytest.raises(ValueError, match='tools/class_means.py'):
        load_class_means(evil())
    assert not marker.exists()


def test_partial_sums(tmp_path, marker):
    partials = Partials(tmp_path / 'means.pth', dict(of='x'), 3, 2, 5)
    torch.save(dict(identity=dict(of='x'), id=Call(Path.touch, marker)), partials.path(0))
    with pytest.raises(ValueError, match='can be read.*--fresh'):
        partials.merge()
    assert not marker.exists()


@pytest.mark.parametrize('resume', [False, True])
def test_runner(evil, marker, shapes, tmp_path, resume):
    cfg = training.config(shapes, tmp_path, 'random', resume=resume, load_from=evil())
    with pytest.raises(pickle.UnpicklingError) as info:
        Runner.from_cfg(cfg).load_or_resume()
    assert TRUST in message(info.value) and 'pathlib' in message(info.value)
    assert not marker.exists()


def test_last_checkpoint_of_a_work_dir(evil, marker, shapes, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(evil())
    cfg = training.config(shapes, tmp_path, 'random', resume=True)
    with pytest.raises(pickle.UnpicklingError):
        Runner.from_cfg(cfg).load_or_resume()
    assert not marker.exists()


def test_pretrained_backbone(evil, marker):
    student = fcos()
    student.backbone.init_cfg = dict(type='Pretrained', checkpoint=evil())
    with pytest.raises(pickle.UnpicklingError):
        build(student)
    assert not marker.exists()


@pytest.mark.slow
def test_command_line(evil, marker, shapes, tmp_path):
    training.config(shapes, tmp_path, 'random').dump(tmp_path / 'config.py')
    done = training.command(
        'tools/train.py', tmp_path / 'config.py', '--resume', evil(call='exec'), '--work-dir', tmp_path / 'work'
    )
    assert done.returncode == 1 and 'Traceback' not in done.stdout
    assert 'it names exec.' in done.stdout
    assert TRUST in done.stdout
    assert not marker.exists()


def _calls(path):
    """``(name, keywords)`` of every call in a source file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield ast.unparse(node.func), keywords


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.name)
def test_no_other_way_to_run_a_file(path):
    for name, keywords in _calls(path):
        assert name not in (
            'eval',
            'exec',
            'pickle.load',
            'pickle.loads',
            'pickle.Unpickler',
            'os.system',
            'marshal.loads',
            'yaml.load',
            'yaml.unsafe_load',
        )
        assert keywords.get('weights_only') != 'False'
        assert keywords.get('allow_pickle') != 'True'
        assert keywords.get('shell') != 'True'
        if name == 'torch.load' and path.name not in FOLLOW_TORCH:
            assert keywords['weights_only'] == 'True'
