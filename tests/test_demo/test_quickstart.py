"""The quickstart: its setting, bad input, table and figures; a tiny one from end to end."""

import fcntl
import json
import os
import subprocess
import sys
from threading import Event
from types import SimpleNamespace

import pytest
import yaml

from demo import figures, pool, quickstart, teacher_box
from demo.pool import Pool
from demo.quickstart import ALONE, CONTROL, DISTILLED, SCENES, TEACHER, TITLES, Quickstart, parse_args, shortened
from studies import setting
from studies.data import generate
from studies.study import Study
from studies.training import FINISHED, UNFINISHED, Failed, Stopped
from tests.helpers.data_sets import ROOT

TINY = f"""
_base_ = {str(ROOT / 'configs/fcos_r18-quarter_shapes.py')!r}
train_dataloader = dict(batch_size=4)
model = dict(backbone=dict(base_channels=4), neck=dict(in_channels=[8, 16, 32]), test_cfg=dict(score_thr=0.0))
"""
MICRO = dict(
    title='Micro',
    text='A few iterations.',
    data=dict(generator=dict(objects='shapes', train=8, val=12, tuning=2, size=[64, 64], max_objects=6, seed=0)),
    metric='coco/bbox_mAP',
    arms=[ALONE, CONTROL, DISTILLED],
    seeds=[0],
    search=dict(shares=[0.3], seeds=[100]),
    gate={},
)


@pytest.fixture
def micro(tmp_path):
    path = tmp_path / 'micro.yml'
    config = tmp_path / 'tiny.py'
    config.write_text(TINY)
    parts = dict(teacher=dict(config=str(config), epochs=1), student=dict(config=str(config), epochs=2, images=4))
    path.write_text(yaml.safe_dump({**MICRO, **parts}))
    return path


def call(*args):
    done = subprocess.run(
        [sys.executable, '-m', 'demo.quickstart', *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_from_nothing_to_a_picture(micro, tmp_path):
    """Teacher, control, two students, table, picture, JSON; the second call trains what changed alone."""
    work, out = tmp_path / 'a place', tmp_path / 'figures.json'
    same = ('--setting', micro, '--work-dir', work, '--train-teacher', '--test-scenes', 10, '--json', out)
    status, said = call(*same, '--control')
    assert status == 0, said
    for part in ('parameters', 'student + RCKA against the student alone', 'done in', 'CPU seconds'):
        assert part in said
    assert (work / 'quickstart.png').stat().st_size > 10_000
    page = (work / 'report.html').read_text()
    assert 'Precision by class and size' in page and 'distilled, seed 0' in page and 'alone, seed 0' in page
    content = json.loads(out.read_text())
    assert '--train-teacher' in content['command'] and '--control' in content['command']
    found = {(one['role'], one['seed']): one for one in content['results']}
    assert [*found] == [(CONTROL, 0), (DISTILLED, 0), (ALONE, 0), (TEACHER, None)]
    assert found[CONTROL, 0]['iterations'] == 6 and found[ALONE, 0]['iterations'] == 2
    assert 0 < found[DISTILLED, 0]['shares']['rcka'] < 1
    assert content['reused'] == [] and content['cpu_seconds'] > 10
    facts, weights = teacher_box.read(work / 'teacher')
    assert facts['sha256'] == content['teacher']['sha256'] and facts['epochs'] == 1
    # the distilled student is plain: mmdet reads it with the config of the student alone
    from mmdet.apis import init_detector

    init_detector(
        str(work / f'{ALONE}_seed-0/config.py'), str(work / f'{DISTILLED}_seed-0/train/epoch_2.pth'), device='cpu'
    )
    # RCKA under other weights of the teacher is another training; the students alone are as they were
    before = {path: path.stat().st_mtime_ns for path in work.rglob('*.log')}
    status, said = call(*same)
    assert status == 0 and said.count('finished before') == 4, said
    assert {path: path.stat().st_mtime_ns for path in work.rglob('*.log')} == before
    (work / f'{ALONE}_seed-0/result.json').unlink()  # as if it had been interrupted in its test
    status, said = call(*same)
    assert status == 0 and said.count('finished before') == 3, said
    changed = {path for path in work.rglob('*.log') if before.get(path) != path.stat().st_mtime_ns}
    assert {path.parts[len(work.parts)] for path in changed} == {f'{ALONE}_seed-0'}
    assert not [path for path in changed if path.name.startswith('train')]


def test_setting_is_that_of_the_study(tmp_path):
    """Teacher and scenes stand once: the study and the quickstart mean the same training."""
    run = Quickstart(parse_args(['--work-dir', str(tmp_path)]))
    study = Study(setting.load('few_labels'), tmp_path, tmp_path, 2)
    assert run.teacher_training().digest == study.teacher().digest
    generator = run.setting.data['generator']
    assert generator == {**study.setting.data['generator'], 'train': 200, 'val': SCENES, 'tuning': 0}
    assert run.setting.student == study.setting.student
    facts, weights = teacher_box.read()
    trainings = run.trainings(facts, weights)
    assert [*trainings] == [(DISTILLED, 0), (ALONE, 0), (TEACHER, None)]
    theirs = study.training(quickstart.Cell(study.setting.arms[ALONE], 0)).cfg
    ours = trainings[ALONE, 0].cfg
    assert teacher_box.recipe(ours) == teacher_box.recipe(theirs)
    assert trainings[DISTILLED, 0].cfg.model.distill.rcka.loss_weight == 10.0


def test_fewer_scenes_are_the_first_of_the_same(micro, tmp_path):
    declared = setting.load(micro)
    few = shortened(declared, None, 3).data['generator']
    generate(declared.data['generator'], tmp_path / 'all')
    generate(few, tmp_path / 'few')
    images = sorted(path.name for path in (tmp_path / 'few/VOC2007/JPEGImages').iterdir())
    assert images == [f'{split}_{i:05d}.jpg' for split, count in (('train', 4), ('val', 3)) for i in range(count)]
    for name in images:
        assert all((tmp_path / part / 'VOC2007/JPEGImages' / name).read_bytes() for part in ('all', 'few'))
        first, second = ((tmp_path / part / 'VOC2007/JPEGImages' / name).read_bytes() for part in ('all', 'few'))
        assert first == second


@pytest.mark.parametrize(
    'args, said',
    [
        (['--epochs', '0'], '--epochs to be at least 1, but got 0'),
        (['--test-scenes', '0'], '--test-scenes to be at least 1'),
        (['--jobs', '-1'], '--jobs to be at least 1, but got -1'),
        (['--seeds', '-1'], '--seeds to be between 0'),
        (['--seeds', 'x'], "invalid int value: 'x'"),
        (['--json', '.'], '--json to be a new name or a regular file'),
    ],
)
def test_bad_input(args, said, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(args)
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_a_seed_that_is_named_twice_trains_once():
    assert parse_args(['--seeds', '1', '0', '1']).seeds == [1, 0]


def test_two_calls_in_one_folder(tmp_path, capsys):
    with open(tmp_path / 'lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert quickstart.main(['--work-dir', str(tmp_path)]) == 2
    assert 'Wait for it, or name another --work-dir' in capsys.readouterr().err


def test_teacher_of_another_setting(micro, tmp_path, capsys):
    assert quickstart.main(['--work-dir', str(tmp_path / 'w'), '--setting', str(micro)]) == 2
    assert '--train-teacher' in capsys.readouterr().err


def test_work_dir_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / 'file').touch()
    assert quickstart.main(['--work-dir', str(tmp_path / 'file')]) == 2
    assert 'file' in capsys.readouterr().err


class Fake:
    """A training that only waits or fails."""

    def __init__(self, folder, fails=False, waits=False, state=UNFINISHED):
        self.folder, self.fails, self.waits, self.state, self.stopped = folder, fails, waits, state, False

    def record(self):
        return dict(metric=3.0) if self.state == FINISHED else None

    def run(self, stop: Event, say):
        if self.fails:
            raise Failed('a: train failed; the log is train-1.log')
        if self.waits:
            assert stop.wait(60)
            self.stopped = True
            raise Stopped
        return dict(metric=5.0)


def test_pool_gives_figures_and_says_what_was_there(tmp_path, capsys):
    trainings = dict(a=Fake(tmp_path), b=Fake(tmp_path, state=FINISHED))
    assert Pool(trainings, 2, dict(a=1, b=1)).run() == dict(a=dict(metric=5.0), b=dict(metric=3.0))
    said = capsys.readouterr().out
    assert 'a: 5.0 mAP' in said and 'b: finished before' in said


def test_a_failure_stops_the_others(tmp_path):
    trainings = dict(a=Fake(tmp_path, waits=True), b=Fake(tmp_path, fails=True), c=Fake(tmp_path))
    with pytest.raises(Failed, match=r'train-1\.log'):
        Pool(trainings, 2, dict(a=1, b=1, c=1)).run()
    assert trainings['a'].stopped


def test_progress_without_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, 'EVERY', -1)
    trained = tmp_path / 'train/20260101_000000/vis_data/scalars.json'
    trained.parent.mkdir(parents=True)
    trained.write_text('{"loss": 1.0, "step": 30}\n')
    one = Fake(tmp_path)
    one.run = lambda stop, say: dict(metric=1.0, waited=stop.wait(2.5))
    Pool(dict(a=one), 1, dict(a=40)).run()
    assert 'a: 30/40 iterations' in capsys.readouterr().out


def rows():
    def row(points, seconds=100.0):
        metrics = dict.fromkeys(figures.METRICS.values(), points / 100)
        surroundings = dict(commit='abc', versions={}, hardware={})
        return dict(metric=points, metrics=metrics, parameters=1234567, seconds=seconds, **surroundings)

    teacher = row(66.0)
    del teacher['seconds']
    found = {(DISTILLED, 0): row(40.0), (ALONE, 0): row(6.0), (DISTILLED, 1): row(42.0), (ALONE, 1): row(7.0)}
    found[ALONE, 1]['metrics'] = {}  # nothing was detected
    return {**found, (TEACHER, None): teacher}


def test_table(capsys):
    figures.show_table([0, 1], rows(), TITLES, 30)
    lines = capsys.readouterr().out.splitlines()
    line = {
        name: next(line for line in lines if f' {name} ' in line) for name in TITLES.values() if name in str(lines)
    }
    assert (
        '66.0' in line['teacher'] and '41.0 ± 1.4' in line['student + RCKA'] and '3.0 ± 4.2' in line['student alone']
    )
    assert '1,234,567' in line['teacher'] and '100 s' in line['student alone']
    assert 'student + RCKA against the student alone: +34.0 mAP (seed 0), +35.0 mAP (seed 1)' in lines


def test_json(tmp_path):
    args = parse_args(['--seeds', '0', '1', '--control', '--json', str(tmp_path / 'new/out.json')])
    facts = dict(sha256='a', recipe='b', seed=0, epochs=8, data={})
    few = shortened(setting.load('few_labels'), None, args.test_scenes)
    figures.write_json(args, rows(), facts, few, dict(seconds=12, cpu_seconds=21, reused=[]))
    content = json.loads(args.json.read_text())
    assert content['command'] == f'bash tools/quickstart.sh --seeds 0 1 --control --test-scenes {SCENES}'
    assert (content['seconds'], content['cpu_seconds'], content['epochs']) == (12, 21, 60)
    assert content['data']['train'] == 200 and content['teacher']['sha256'] == 'a'
    assert content['results'][0] == dict(
        role=DISTILLED, seed=0, metric=40.0, metrics=rows()[DISTILLED, 0]['metrics'], seconds=100.0, parameters=1234567
    )


def test_interrupted_call_says_how_it_goes_on(tmp_path, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Quickstart, 'run', interrupted)
    assert quickstart.main(['--work-dir', str(tmp_path)]) == 130
    assert 'the same command goes on from here' in capsys.readouterr().err


def test_iterations(tmp_path):
    run = Quickstart(parse_args(['--work-dir', str(tmp_path)]))
    training = run.trainings(*teacher_box.read())[ALONE, 0]
    assert run._iterations(training) == 60 * 13
    assert run._iterations(run.teacher_training()) == 8 * 250
    assert SimpleNamespace(**training.cfg.default_hooks.checkpoint).interval == 10
