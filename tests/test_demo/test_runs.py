"""Trainings of the comparison: reuse and progress."""

from unittest.mock import Mock

import pytest

from demo.runs import Run
from kd_ext.engine import ProgressHook


@pytest.fixture
def trained(monkeypatch):
    """Counts trainings instead of doing them."""
    calls = []
    monkeypatch.setattr(Run, '_train', lambda run, command: calls.append(command))
    monkeypatch.setattr(Run, '_figures', lambda run: dict(metrics={}, checkpoint='x.pth', parameters=1))
    return calls


def test_finished_run_is_reused(trained, tmp_path):
    runs = [Run('a', 'c.py', tmp_path / 'a', {'seed': 0}) for _ in range(2)]
    first, second = (run.result() for run in runs)
    assert len(trained) == 1 and first == second


@pytest.mark.parametrize('changed', [Run('a', 'c.py', 'a', {'seed': 1}), Run('a', 'd.py', 'a', {'seed': 0})])
def test_changed_setting_trains_again(trained, tmp_path, changed):
    Run('a', 'c.py', tmp_path / 'a', {'seed': 0}).result()
    changed.folder = tmp_path / 'a'
    changed.result()
    assert len(trained) == 2


def test_unfinished_run_is_not_reused(trained, tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'epoch_1.pth').touch()
    Run('a', 'c.py', tmp_path / 'a', {}).result()
    assert len(trained) == 1


def test_failed_training_names_its_log(tmp_path):
    with pytest.raises(SystemExit, match=r'training failed.*log\.txt'):
        Run('a', 'nowhere.py', tmp_path / 'a', {}).result()
    assert not (tmp_path / 'a' / 'result.json').exists()


def test_command_is_one_a_user_can_type(tmp_path):
    assert Run('a', 'c.py', 'w', {'x.y': 1}).command() == [
        'tools/train.py',
        'configs/c.py',
        '--work-dir',
        'w',
        '--cfg-options',
        'x.y=1',
        'custom_hooks.0.title=a',
    ]


def test_progress_without_a_terminal(capsys):
    hook = ProgressHook('demo', interval=0.0)
    runner = Mock(max_iters=2, iter=0)
    hook.before_train(runner)
    for runner.iter in range(2):
        hook.after_train_iter(runner, runner.iter, outputs=dict(loss=1.5))
    hook.after_train(runner)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith('demo: 1/2 iterations, loss 1.500')
    assert shown[1].startswith('demo: 2/2')
