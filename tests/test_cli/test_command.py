"""The command kd_ext, and what ends a tool with a message."""

import errno
import sys
from types import SimpleNamespace

import pytest
import torch

from kd_ext.cli import command, errors, train
from kd_ext.cli.errors import console
from kd_ext.cli.test import check_weights
from kd_ext.teachers.checkpoint import read_checkpoint
from tests.helpers import fresh_processes
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import ROOT


@pytest.mark.parametrize('name', command.COMMANDS)
def test_a_command_has_a_help_and_is_listed(name, capsys):
    for argv in (['--help'], [name, '--help']):
        with pytest.raises(SystemExit) as info:
            command.main(argv)
        assert info.value.code == 0
    shown = capsys.readouterr().out
    assert f'usage: kd_ext {name} ' in shown and f'\n  {name}' in shown


def test_an_unknown_command(capsys):
    with pytest.raises(SystemExit) as info:
        command.main(['trian'])
    assert info.value.code == 2 and "'trian'" in capsys.readouterr().err


def test_tools_are_calls_of_a_main():
    for path in [*(ROOT / 'tools').glob('*.py'), *(ROOT / 'tools/analysis').glob('*.py')]:
        if 'doctor' not in path.name:
            assert len(path.read_text().splitlines()) <= 6, path


def test_as_a_module():
    done = fresh_processes.run('-m', 'kd_ext.cli', '--help')
    assert done.returncode == 0 and 'neural-collapse' in done.stdout


def test_a_full_disk_behind_stdout_is_named(monkeypatch):
    error = OSError(errno.ENOSPC, 'No space left on device')
    assert errors.message(error) is None  # stdout is fine, so something else is
    with open('/dev/full', 'w') as full:
        monkeypatch.setattr(sys, 'stdout', full)
        assert 'standard output' in errors.message(error)


@pytest.mark.parametrize('columns, width', [('0', 80), ('7', 80), ('100', 100)])
def test_a_terminal_without_columns_shows_all(columns, width, monkeypatch):
    monkeypatch.setenv('COLUMNS', columns)
    assert console().width == width


def test_a_checkpoint_that_does_not_fit(tmp_path):
    for name, cfg in dict(own=tiny.fcos(), other=tiny.fcos(8)).items():
        torch.save(dict(state_dict=tiny.build(cfg).state_dict()), tmp_path / name)
    runner = SimpleNamespace(model=tiny.build(tiny.fcos()))
    check_weights(runner, str(tmp_path / 'own'))
    with pytest.raises(ValueError, match='checkpoint of the model .*reshaped'):
        check_weights(runner, str(tmp_path / 'other'))
    check_weights(runner, str(tmp_path / 'other'), allow_mismatch=True)


def test_another_training_in_the_work_dir(tmp_path, capsys):
    train.warn_of_another_run(tmp_path, False)
    assert not capsys.readouterr().err
    (tmp_path / '20250101_120000').mkdir()
    train.warn_of_another_run(tmp_path, True)
    assert not capsys.readouterr().err
    train.warn_of_another_run(tmp_path, False)
    assert '20250101_120000' in (shown := capsys.readouterr().err) and '--work-dir' in shown


@pytest.mark.parametrize('value', [True, dict(mode='default')])
def test_compiling_a_distillation_is_refused(shapes, tmp_path, value):
    cfg = training.config(shapes, tmp_path / 'run', training.save_teacher(tmp_path), compile=value)
    with pytest.raises(ValueError, match='compile to be left out of a config that distills'):
        train.check_compile(cfg)
    cfg.model = cfg.model.student
    train.check_compile(cfg)


def test_the_tool_refuses_to_compile_a_distillation(shapes, tmp_path, capsys):
    path = tmp_path / 'distilled.py'
    training.config(shapes, tmp_path / 'run', training.save_teacher(tmp_path), compile=True).dump(path)
    with pytest.raises(SystemExit) as info:
        train.main([str(path)])
    assert info.value.code == 1 and 'compile' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_a_batch_larger_than_the_data(shapes, tmp_path):
    cfg = training.config(shapes, tmp_path, 'random')
    cfg.train_dataloader.update(batch_size=100, drop_last=True)
    cfg.dump(tmp_path / 'own.py')
    with pytest.raises(ValueError, match=r'batch_size to be at most the 8 .*but got 100\. .*drop_last=False'):
        train.main.__wrapped__([str(tmp_path / 'own.py'), '--skip-check'])


@pytest.mark.slow
def test_a_distillation_resumed_as_a_plain_training(shapes, tmp_path):
    cfg = training.config(shapes, tmp_path, training.save_teacher(tmp_path), 1)
    training.train(cfg)
    cfg.model = training.STUDENT
    cfg.dump(tmp_path / 'plain.py')
    with pytest.raises(ValueError, match='--resume .*same parameters.*load_from'):
        train.main.__wrapped__(
            [str(tmp_path / 'plain.py'), '--resume', '--cfg-options', 'train_cfg.max_epochs=2', 'val_cfg=None']
            + ['val_dataloader=None', 'val_evaluator=None']
        )


def test_a_full_disk_is_not_blamed_on_a_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / 'own.pth'
    torch.save(dict(state_dict=tiny.build(tiny.fcos()).state_dict()), path)
    with open('/dev/full', 'w', buffering=1) as full:
        monkeypatch.setattr(sys, 'stdout', full)
        state, _ = read_checkpoint(str(path))
    assert 'backbone.conv1.weight' in state
