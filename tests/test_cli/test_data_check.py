import os
import runpy
import signal
import sys

import pytest
from mmengine.config import Config

from kd_ext.cli import errors
from kd_ext.cli.data_check import check_checkpoint, check_data
from kd_ext.engine.interruption import SIGNALS
from kd_ext.errors import expected
from tests.helpers import fresh_processes
from tests.helpers.data_sets import ROOT


@pytest.fixture
def data(tmp_path):
    (tmp_path / 'set/annotations').mkdir(parents=True)
    (tmp_path / 'set/images').mkdir()
    (tmp_path / 'set/annotations/train.json').write_text('{}')
    return str(tmp_path / 'set')


def dataset(root, **changes):
    return {
        **dict(type='CocoDataset', data_root=root, ann_file='annotations/train.json', data_prefix=dict(img='images/')),
        **changes,
    }


def check(data_of_train, **others):
    check_data(Config(dict(train_dataloader=dict(dataset=data_of_train), **others)), ('train', 'val'))


def problems(*args, **kwargs):
    with pytest.raises(FileNotFoundError) as info:
        check(*args, **kwargs)
    lines = str(info.value).splitlines()
    assert all(line.startswith('Expected ') for line in lines)
    return lines


def test_all_there(data):
    check(dataset(data))
    check(dataset('', ann_file=f'{data}/annotations/train.json', data_prefix=dict(img=f'{data}/images')))
    check(
        dataset('not/there', ann_file=f'{data}/annotations/train.json', data_prefix=dict(img=f'{data}/images'))
    )  # root is unused
    check(dict(type='Own'))
    check_data(Config(dict(val_dataloader=None)), ('train', 'val'))


@pytest.mark.parametrize(
    'key, changes, value',
    [
        ('ann_file', dict(ann_file='annotations/trian.json'), 'set/annotations/trian.json'),
        ('data_prefix.img', dict(data_prefix=dict(img='image')), 'set/image'),
        ('data_root', dict(data_root='not/there'), 'not/there'),
    ],
)
def test_one_missing(data, key, changes, value):
    (line,) = problems(dataset(data, **changes))
    key = f'train_dataloader.dataset.{key}'
    assert line.startswith(f'Expected {key} to be an existing ')
    assert f"{value}'." in line
    assert f'--cfg-options {key}=PATH' in line


def test_near_matches(data):
    (line,) = problems(dataset(data, ann_file='annotations/trian.json'))
    assert 'Did you mean: train.json?' in line
    (line,) = problems(dataset(data, ann_file='anotations/train.json'))
    assert f'There is no folder {data}/anotations either.' in line


@pytest.mark.parametrize(
    'wrap, place',
    [
        (lambda one: dict(type='RepeatDataset', times=2, dataset=one), 'dataset.dataset'),
        (
            lambda one: dict(type='ClassBalancedDataset', dataset=dict(type='RepeatDataset', dataset=one)),
            'dataset.dataset.dataset',
        ),
        (lambda one: dict(type='MultiImageMixDataset', dataset=one, pipeline=[]), 'dataset.dataset'),
        (lambda one: dict(type='ConcatDataset', datasets=[dict(type='Own'), one]), 'dataset.datasets.1'),
    ],
)
def test_wrapped(data, wrap, place):
    check(wrap(dataset(data)))
    (line,) = problems(wrap(dataset(data, ann_file='x.json')))
    assert line.startswith(f'Expected train_dataloader.{place}.ann_file to')


@pytest.mark.parametrize(
    'changes',
    [
        dict(ann_file='s3://bucket/train.json', data_prefix=dict()),
        dict(data_root='https://host/set'),
        dict(data_root='petrel:s3://bucket'),
        dict(ann_file='x', backend_args=dict(backend='petrel')),
        dict(ann_file='x', file_client_args=dict(backend='http')),
    ],
)
def test_remote_files_are_not_looked_for(data, changes):
    check(dataset(data, **changes))


@pytest.mark.parametrize(
    'evaluator, place',
    [
        (dict(type='CocoMetric', ann_file='x.json'), 'val_evaluator'),
        ([dict(type='VOCMetric'), dict(type='CocoMetric', ann_file='x.json')], 'val_evaluator.1'),
        (dict(type='Evaluator', metrics=[dict(ann_file='x.json')]), 'val_evaluator.metrics.0'),
    ],
)
def test_metric(data, evaluator, place):
    (line,) = problems(dataset(data), val_evaluator=evaluator)
    assert line.startswith(f'Expected {place}.ann_file to be')


def test_all_problems_at_once(data):
    lines = problems(
        dataset(data, ann_file='a.json', data_prefix=dict(img='b')), val_dataloader=dict(dataset=dataset('not/there'))
    )
    assert len(lines) == 3


def test_checkpoint(tmp_path):
    (tmp_path / 'epoch_12.pth').touch()
    for good in (None, str(tmp_path / 'epoch_12.pth'), 'https://host/a.pth', 'torchvision://resnet50'):
        check_checkpoint('checkpoint', good)
    with pytest.raises(FileNotFoundError, match=r'Did you mean: epoch_12.pth'):
        check_checkpoint('checkpoint', str(tmp_path / 'epoch_2.pth'))
    with pytest.raises(FileNotFoundError, match='There is no checkpoint in'):
        check_checkpoint('--resume', str(tmp_path / 'none/epoch_2.pth'))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a tool in this process: exit status, stderr."""
    handlers = {one: signal.getsignal(one) for one in SIGNALS}

    def call(tool, *args):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        with pytest.raises(SystemExit) as info:
            runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')
        return info.value.code, capsys.readouterr().err

    monkeypatch.delenv('KD_EXT_TRACEBACK', raising=False)
    yield call
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def config(tmp_path):
    """A config whose model cannot be built: the data come first."""
    path = tmp_path / 'config.py'
    path.write_text(
        "train_dataloader = dict(dataset=dict(ann_file='no/train.json'))\n"
        'test_dataloader = train_dataloader\n'
        "model = dict(type='NoSuchModel')\n"
    )
    return path


def test_train_stops_before_building(run, config, tmp_path):
    code, text = run('train', config, '--work-dir', tmp_path / 'out')
    assert code == 1
    assert text.startswith('Expected train_dataloader.dataset.ann_file to')
    assert not (tmp_path / 'out').exists()


def test_as_a_command(config):
    def stderr(**env):
        done = fresh_processes.run('tools/train.py', config, env={**os.environ, **env})
        assert done.returncode == 1
        assert 'Expected train_dataloader.dataset.ann_file' in done.stderr
        return done.stderr

    assert 'Traceback' not in stderr()
    assert 'Traceback' in stderr(KD_EXT_TRACEBACK='1')


def test_missing_config_of_a_tool(run, tmp_path):
    for tool in ('train', 'test'):
        code, text = run(tool, tmp_path / 'no.py', 'a.pth')
        assert code == (2 if tool == 'train' else 1)  # train takes one
    assert text.startswith('Expected config to be an existing file')


def test_test_checks_checkpoint_and_data(run, config, tmp_path):
    code, text = run('test', config, tmp_path / 'no.pth')
    assert code == 1 and text.startswith('Expected checkpoint to be')
    code, text = run('test', config, 'https://host/a.pth')
    assert code == 1
    assert text.startswith('Expected test_dataloader.dataset.ann_file to')
    code, text = run('test', config, 'a.pth', '--out', 'a.json')
    assert code == 2 and 'Expected --out to be' in text


def test_train_checks_what_it_resumes_from(run, config, tmp_path):
    code, text = run('train', config, '--resume', tmp_path / 'no.pth')
    assert code == 1 and text.startswith('Expected --resume to be')
    code, text = run('train', config, '--cfg-options', 'load_from=no.pth')
    assert code == 1 and text.startswith('Expected load_from to be')


def fail(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as info:
        errors.run(main)
    return info.value.code


@pytest.mark.parametrize('kind', [ValueError, TypeError, KeyError, FileNotFoundError, FloatingPointError])
def test_our_errors_are_messages(kind, capsys, monkeypatch):
    monkeypatch.delenv('KD_EXT_TRACEBACK', raising=False)
    assert fail(kind(expected('a', 'b', '"c"', 'Do d.'))) == 1
    assert capsys.readouterr().err.startswith('Expected a to be b, but got "c". Do d.\n')


@pytest.mark.parametrize(
    'error',
    [
        ValueError('Expected more than 1 value per channel when training'),
        RuntimeError('Expected weight to be a vector, but got a scalar'),
        ValueError(),
        KeyError('neck'),
    ],
)
def test_other_errors_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        errors.run(main)


def test_rank_0_speaks_first(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(errors.time, 'sleep', waited.append)
    monkeypatch.setattr(errors.signal, 'signal', lambda *args: None)
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    error = ValueError(expected('a', 'b', 'c'))
    assert fail(error) == 1 and not waited
    monkeypatch.setenv('RANK', '1')
    assert fail(error) == 1 and len(waited) == 1
