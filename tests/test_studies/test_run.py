"""A study of a few iterations: run, killed, resumed, changed."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from unittest.mock import Mock

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner

from kd_ext.engine import ExactResumeHook
from studies import setting
from studies.cells import Cell, Choice, make_config
from studies.data import prepare
from studies.figures import read_curve
from studies.setting import Arm
from studies.training import CHANGED, FINISHED, MISSING, UNFINISHED, Failed, Stopped, Training
from tests.helpers.data_sets import ROOT

FCOS = 'configs/fcos_r18-quarter_shapes.py'
TINY = {
    'train_dataloader.batch_size': 4,
    'model.test_cfg.score_thr': 0.0,
    'model.backbone.base_channels': 4,
    'model.neck.in_channels': [8, 16, 32],
}
MICRO = dict(
    title='Micro',
    text='A few iterations.',
    data=dict(generator=dict(objects='shapes', train=8, val=4, tuning=4, size=[64, 64], max_objects=3, seed=0)),
    metric='coco/bbox_mAP',
    curve_points=2,
    teacher=dict(config=FCOS, epochs=1, options=TINY),
    student=dict(config=FCOS, epochs=4, images=6, options=TINY),
    arms=['alone', 'rcka_w10'],
    seeds=[0],
    search=dict(shares=[0.3], seeds=[100]),
    gate={},
)
# what differs from one training of a cell to the next; the commit, where somebody commits meanwhile
UNEQUAL = ('seconds', 'seconds_per_step', 'attempts', 'commit')


def declare(folder, **changes):
    path = folder / 'micro.yml'
    path.write_text(yaml.safe_dump({**MICRO, **changes}))
    return path


def start(folder, work, *args):
    command = ['-m', 'studies.run', folder / 'micro.yml', '--work-dir', work, '--results', work / 'results', *args]
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run(folder, work, *args):
    process = start(folder, work, *args)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def figures(work):
    """The JSON of a study without what is not reproduced."""
    content = json.loads((work / 'results/micro.json').read_text())
    for one in [content['teacher'], *content['cells']]:
        for key in UNEQUAL:
            assert one.pop(key)
    return content


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_killed_resumed_and_changed(tmp_path):
    """SIGKILL in the middle of a cell, then the same command: the JSON of an unbroken run."""
    work, broken = tmp_path / 'work', tmp_path / 'broken'
    declare(tmp_path)
    said = run(tmp_path, work, '--arms', 'alone', 'rcka_w10')
    unbroken = figures(work)
    assert [(one['arm'], one['seed'], one['split']) for one in unbroken['cells']] == [
        ('alone', 0, 'test'),
        ('rcka_w10', 0, 'test'),
    ]
    assert all(one['iterations'] == 8 and [e for e, _ in one['curve']] == [2, 4] for one in unbroken['cells'])
    assert 0 < unbroken['cells'][1]['shares']['rcka'] < 1 and not unbroken['cells'][0]['shares']
    assert unbroken['gate']['verdict'] == 'failed' and 'gate of micro: failed' in said
    log = (work / 'micro/log.txt').read_text()
    assert log.count('alone_seed-0 (test)') == log.count('rcka_w10_seed-0 (test)') == 1
    # the teacher and the other cell are there already
    broken.mkdir()
    for part in ('data', 'teachers'):
        (broken / part).symlink_to(work / part)
    process = start(tmp_path, broken, '--arms', 'rcka_w10')
    cell = broken / 'micro/rcka_w10_seed-0'
    stop = time.monotonic() + 600
    while not (cell / 'train/epoch_1.pth').exists():
        assert process.poll() is None and time.monotonic() < stop, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (cell / 'result.json').exists() and not (cell / 'train/epoch_4.pth').exists()
    run(tmp_path, broken, '--arms', 'rcka_w10')
    resumed = figures(broken)['cells']
    assert len([*cell.glob('train-*.log')]) == 2
    assert resumed == unbroken['cells'][1:]
    # one arm is declared otherwise: it alone runs again
    own = dict(title='RCKA', role='ours', search=False, methods=['rcka'], changes=dict(rcka=dict(patch_size=2)))
    declare(tmp_path, own_arms=dict(rcka_w10=own))
    plan = run(tmp_path, work, '--dry-run').splitlines()
    assert [line.split() for line in plan if '_seed-' in line or 'teacher' in line] == [
        ['teacher', 'finished'],
        ['alone_seed-0', 'finished'],
        ['rcka_w10_seed-0', 'changed,', '4', 'of', '4', 'epochs'],
    ]
    said = run(tmp_path, work, '--arms', 'alone', 'rcka_w10')
    assert 'rcka_w10_seed-0: declared otherwise now' in said
    changed = figures(work)['cells']
    assert changed[0] == unbroken['cells'][0] and changed[1]['digest'] != unbroken['cells'][1]['digest']
    assert len([*(work / 'micro/alone_seed-0').glob('train-*.log')]) == 1


def images_seen(cfg, draws):
    """Names and flips of two epochs, while the steps draw ``draws`` random numbers each."""
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.randomness.seed)
    hook = ExactResumeHook()
    runner = Mock(train_dataloader=loader, seed=cfg.randomness.seed, train_loop=Mock(spec=EpochBasedTrainLoop))
    hook.before_train(runner)
    seen = []
    for runner.epoch in range(2):
        loader.sampler.set_epoch(runner.epoch)
        hook.before_train_epoch(runner)
        for runner.iter, batch in enumerate(loader):
            hook.before_train_iter(runner, runner.iter, batch)
            seen += [(one.img_path, one.flip) for one in batch['data_samples']]
            torch.rand(draws)
    return seen


def test_all_arms_of_a_seed_see_the_same_images(tmp_path):
    declared = setting.load(declare(tmp_path))
    data = prepare(declared, tmp_path)
    arms, files = declared.arms, (tmp_path / 't.py', tmp_path / 't.pth')
    alone, distilled, other = (
        make_config(declared, Cell(arms[name], seed), data, files)
        for name, seed in (('alone', 0), ('rcka_w10', 0), ('alone', 1))
    )
    seen = images_seen(alone, 0)
    assert len(seen) == 12 and len({name for name, _ in seen}) == 6 and len({flip for _, flip in seen}) == 2
    assert images_seen(distilled, 7) == seen
    assert images_seen(other, 0) != seen


def a_training(folder, digest='a'):
    cfg = Config(dict(train_cfg=dict(max_epochs=4, val_interval=2), model=dict(type='FCOS')))
    cell = Cell(Arm('alone', 'student alone', 'baseline'), 0, Choice())
    return Training(cell, cfg, digest, folder / 'cell', 'coco/bbox_mAP')


def test_states_of_a_cell(tmp_path, monkeypatch):
    training = a_training(tmp_path)
    assert training.state == MISSING
    calls = []

    def call(self, kind, command, lock, stop):
        calls.append(kind)
        (self.folder / 'train').mkdir(exist_ok=True)
        if len(calls) == 1:
            raise Failed('out of memory')

    monkeypatch.setattr(Training, '_call', call)
    monkeypatch.setattr('studies.training.read_figures', lambda training: dict(metric=1.0))
    with pytest.raises(Failed):
        training.run(Event())
    assert training.state == UNFINISHED and training.record() is None
    assert training.run(Event())['metric'] == 1.0 and calls == ['train', 'train', 'score']
    assert training.state == FINISHED
    assert training.run(Event())['metric'] == 1.0 and len(calls) == 3  # reused
    other = a_training(tmp_path, 'b')
    assert other.state == CHANGED and other.record() is None
    other.run(Event())
    assert calls[3:] == ['train', 'score'] and other.state == FINISHED


def test_a_training_that_outlived_its_runner_is_waited_for(tmp_path, monkeypatch):
    training, said, stop = a_training(tmp_path), [], Event()
    monkeypatch.setattr(Training, '_call', lambda *args: pytest.fail('two processes in one folder'))
    (tmp_path / 'cell').mkdir()
    with open(tmp_path / 'cell/lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def say(text):
            said.append(text)
            stop.set()

        with pytest.raises(Stopped):
            training.run(stop, say)
    assert 'an earlier call still trains it' in said[0]


def scalars(folder, *lines):
    path = folder / 'train/20260101_000000/vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(lines))
    return path.parents[2]


def test_checkpoint_without_its_validation_is_dropped(tmp_path):
    """MMEngine does not validate after a resume: the epoch before is taken up again."""
    training = a_training(tmp_path)
    folder = scalars(tmp_path / 'cell', '{"coco/bbox_mAP": 0.5, "step": 2}', '{"coco/bbox_mAP": 0.')
    for name in ('epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth', 'interrupted.pth', 'last_checkpoint'):
        (folder / name).touch()
    training._drop_unvalidated()
    assert sorted(path.name for path in folder.glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']
    assert (folder / 'last_checkpoint').exists()
    for path in folder.glob('*.pth'):
        path.unlink()
    training._drop_unvalidated()
    assert not (folder / 'last_checkpoint').exists()


def test_curve(tmp_path):
    folder = scalars(
        tmp_path,
        '{"loss": 3.0, "time": 0.1, "step": 1}',
        '{"coco/bbox_mAP": 0.25, "step": 2}',
        '{"time": 0.1, "step": 4}',  # nothing was detected
        '{"coco/bbox_mAP": 0.5, "step": 4}',  # repeated after a break
        '{"time": 0.1, "step": 6}',
    )
    assert read_curve(folder, 'coco/bbox_mAP') == [[2, 25.0], [4, 50.0], [6, 0.0]]
    with pytest.raises(ValueError, match='coco/bbox_mAP'):
        read_curve(folder, 'coco/bbox_map')


def test_failure_names_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/bin/false')
    training = a_training(tmp_path)
    with pytest.raises(Failed, match=r'train failed.*train-1\.log'):
        training.run(Event())
    assert training.state == UNFINISHED and Path(training.folder / 'train-1.log').exists()
