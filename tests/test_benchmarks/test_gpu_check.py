"""The check for GPUs: what it counts, what it refuses, what it keeps, and all of it on a CPU."""

import importlib
import json
import os
import subprocess
from collections import Counter

import pytest
import torch
from pip._vendor.packaging.requirements import Requirement

from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import report, wheels
from benchmarks.gpu_check.losses import SMALL, compare
from benchmarks.gpu_check.parts import PARTS, Row, Setting
from benchmarks.gpu_check.refusal import Refusal, refusing
from benchmarks.gpu_check.waits import ALLOWED, counted, of_step
from benchmarks.growth_model import ENTRIES
from kd_ext.losses import waiting
from tests.helpers.data_sets import ROOT


def test_rows_are_judged():
    rows = Row('a', 1.0, 1.0), Row('b', 1.1, 1.0), Row('c', float('nan'), 1.0), Row('d', 'cpu', 'cuda'), Row('e', 9.0)
    assert [row.good for row in rows] == [True, False, False, False, None]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', sorted({*ENTRIES} - {'lipschitz'}))  # the slow run has it
def test_losses_agree_with_float64(name, dtype):
    rows = compare(name, SMALL, 'cpu', dtype)
    assert all(row.good for row in rows), rows
    assert rows[1].found > 0  # nothing is compared with itself


def test_a_loss_that_differs_is_found(monkeypatch):
    module = importlib.import_module('kd_ext.losses.nd_loss')  # the package has the function by that name
    right = module.nd_loss

    def wrong_in_float32(student, *rest):
        return right(student, *rest) * (1.01 if student.dtype == torch.float32 else 1)

    monkeypatch.setattr(module, 'nd_loss', wrong_in_float32)
    assert [row.good for row in compare('nd', SMALL, 'cpu', torch.float32)] == [False, False, True]


@pytest.mark.parametrize(
    ('waits', 'count'),
    [
        (lambda values: values.sum().item(), 1),
        (lambda values: bool((values > 0).all()), 1),
        (lambda values: values.nonzero(), 1),
        (lambda values: values[values > 0], 1),
        (lambda values: torch.tensor([1.0, 2.0]), 1),
        (lambda values: torch.linalg.eigh(values @ values.T), 1),
        (lambda values: torch.where(values > 0, values, 0).sum().clamp(min=1), 0),
    ],
)
def test_waits_are_counted_where_they_stand(waits, count):
    values = torch.ones(3, 3)
    with counted('cpu') as places:
        waits(values)
    assert sum(places.values()) == count
    assert all(place.startswith('test_benchmarks/test_gpu_check.py:') for place in places)
    assert list(waiting.PROMPT) == ['cpu']


def test_a_step_waits_as_often_as_allowed(monkeypatch):
    found = of_step('FCOS', 'cpu')
    own = Counter({place: count for place, count in found.items() if place.startswith('kd_ext/')})
    assert sum(own.values()) == ALLOWED['FCOS'] and all('taps/heads/dense.py' in place for place in own)
    assert sum(found.values()) > sum(own.values())  # mmdet's own


def test_a_term_that_waits_is_found(monkeypatch):
    module = importlib.import_module('kd_ext.losses.rcka_loss')
    right = module.rcka_loss

    def waiting_loss(*args):
        value = right(*args)
        return value if value.item() < 9 else value

    monkeypatch.setattr(module, 'rcka_loss', waiting_loss)
    assert any(place.startswith('test_benchmarks/test_gpu_check.py') for place in of_step('FCOS', 'cpu'))


def test_refusals_of_the_device(monkeypatch):
    monkeypatch.setenv('KD_EXT_DEVICE', 'tpu')
    with pytest.raises(Refusal, match="KD_EXT_DEVICE to be cuda or cpu, but got 'tpu'"):
        command.device_name()
    monkeypatch.setenv('KD_EXT_DEVICE', 'cuda')
    monkeypatch.setattr(torch.version, 'cuda', None)
    with pytest.raises(Refusal, match='torch to be built for CUDA, but got torch'):
        command.device_name()
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(Refusal, match='Expected a GPU, but got none'):
        command.device_name()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Some GPU')
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (2**30, 2**34))
    with pytest.raises(Refusal, match='at least 8 GiB of free GPU memory, but got 1.0 GiB on Some GPU'):
        command.device_name()
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (2**34, 2**34))
    assert command.device_name() == 'cuda'


def test_a_refusal_is_one_sentence_and_status_2(capsys):
    def main():
        raise Refusal('Expected a GPU, but got none.')

    assert refusing(main) == 2
    assert capsys.readouterr().err == 'Expected a GPU, but got none.\n'


def test_wheels_of_another_python(tmp_path, monkeypatch):
    wanted = Requirement('shapely>=2')
    with pytest.raises(Refusal, match='a wheel of shapely>=2 for Python .*, but got none. Collect again'):
        wheels.wheel_for(wanted, tmp_path)
    (tmp_path / 'shapely-2.2.0-cp39-cp39-manylinux_2_17_x86_64.whl').touch()
    (tmp_path / 'rich-15.0.0-py3-none-any.whl').touch()
    with pytest.raises(Refusal, match='but got shapely-2.2.0-cp39.*, for another one. Collect again: bash tools/gpu_'):
        wheels.wheel_for(wanted, tmp_path)
    monkeypatch.setattr(wheels, 'missing', lambda: [wanted])
    with pytest.raises(Refusal, match='shapely'):
        wheels.install(tmp_path, tmp_path / 'site')
    right = tmp_path / 'shapely-2.1.0-py3-none-any.whl'
    right.touch()
    assert wheels.wheel_for(wanted, tmp_path) == right


def test_only_what_is_missing_is_installed(tmp_path, monkeypatch):
    assert not wheels.missing()  # of this environment
    assert 'nothing, all is there' in wheels.install(tmp_path, tmp_path / 'site')
    monkeypatch.setattr(wheels, 'WITH_TORCH', dict(no_such_module='thing'))
    with pytest.raises(Refusal, match='Expected thing to be installed beside torch'):
        wheels.install(tmp_path, tmp_path / 'site')


@pytest.fixture
def main(tmp_path, monkeypatch):
    """Runs the command with parts that end as they are told."""
    monkeypatch.setenv('KD_EXT_DEVICE', 'cpu')
    ran = []

    def call(results, *args):
        def run_part(name, seconds):
            ran.append(name)
            return results[name]

        monkeypatch.setattr(command, 'run_part', run_part)
        path = tmp_path / 'found.json'
        monkeypatch.setattr('sys.argv', ['gpu_check', '--json', str(path), '--parts', *results, *args])
        status = refusing(command.main)
        return status, json.loads(path.read_text())['parts'], ran

    return call


GOOD = dict(status='done', rows=[dict(Row('x', 1.0, 2.0)._asdict(), good=True)])
BAD = dict(status='done', rows=[dict(Row('x', 3.0, 2.0)._asdict(), good=False)])


def test_what_ran_is_kept_and_not_run_again(main):
    status, parts, ran = main(dict(losses=GOOD, waits=dict(status='failed', error='boom'), steps=GOOD))
    assert status == 1 and [part['status'] for part in parts.values()] == ['done', 'failed', 'done']
    ran.clear()
    status, parts, ran = main(dict(losses=BAD, waits=GOOD, steps=BAD))
    assert status == 0 and ran == ['waits']


def test_a_row_outside_its_limit_is_status_1(main, capsys):
    assert main(dict(losses=BAD))[0] == 1
    assert 'NOT OK' in capsys.readouterr().out


def test_too_little_memory_is_status_2_and_keeps_the_rest(main, capsys):
    short = dict(status='too little memory', error='CUDA out of memory')
    status, parts, _ = main(dict(losses=GOOD, step_cost_8=short, ddp=GOOD))
    assert status == 2 and parts['losses'] == GOOD and parts['ddp'] == GOOD
    assert capsys.readouterr().err.startswith('Expected memory for step_cost_8, but got: CUDA out of memory.')


def test_no_part_is_begun_without_time(main):
    status, parts, ran = main(dict(losses=GOOD), '--seconds', '1')
    assert status == 1 and parts['losses'] == dict(status='out of time') and not ran


def test_a_file_of_other_ops_is_begun_anew(tmp_path):
    path = tmp_path / 'found.json'
    first = report.begin(path, 'cpu')
    first['parts']['losses'] = GOOD
    report.write(path, first)
    assert report.begin(path, 'cpu')['parts'] == dict(losses=GOOD)
    report.write(path, dict(first, ops='other'))
    assert report.begin(path, 'cpu')['parts'] == {}


def test_a_process_reports_its_memory_error(tmp_path, monkeypatch):
    def hungry(setting):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 9 GiB')

    monkeypatch.setitem(PARTS, 'losses', hungry)
    command.run_one('losses', 'cpu', tmp_path / 'part.json')
    found = json.loads((tmp_path / 'part.json').read_text())
    assert found == dict(status='too little memory', error='CUDA out of memory')


def test_names_of_the_parts():
    from benchmarks.gpu_check import cost, losses, steps, waits  # noqa: F401

    assert set(PARTS) == set(command.NAMES)
    assert Setting('cuda', False).halves == (torch.float16, torch.bfloat16)


def test_the_script_refuses_without_a_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('a GPU is at hand')
    done = call_script(tmp_path, KD_EXT_DEVICE='cuda')
    assert done.returncode == 2 and done.stderr.startswith('Expected ') and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_check_on_a_cpu(tmp_path):
    done = call_script(tmp_path, KD_EXT_DEVICE='cpu', KD_EXT_GPU_SECONDS='1700')
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / 'found.json').read_text())['parts']
    assert [part['status'] for part in parts.values()] == ['done'] * len(command.NAMES)


def call_script(folder, **settings):
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'KD_EXT_GPU_JSON': str(folder / 'found.json'), **settings}
    return subprocess.run(['bash', ROOT / 'tools/gpu_check.sh'], env=env, capture_output=True, text=True)
