import json

import pytest
from matplotlib.image import imread

from benchmarks.growth_model import ENTRIES, EXTRA, LINES, VALUES, Line, amount, fit, judge, make_run
from benchmarks.growth_plot import draw
from kd_ext.recipes import PARTS
from tests.helpers import fresh_processes

SMALL = dict(pixels=(64, 96), batch=2, regions=8, classes=5, width=4, embedding=6)
LINE = Line('rcka', 'batch', 1, 'longer rows')


@pytest.mark.parametrize('line', LINES, ids=lambda line: '-'.join(line[:2]))
def test_every_line_runs(line):
    for value in (SMALL.get(line.along, 1), VALUES[line.along][0]):
        make_run(line, value, **SMALL)()


def test_every_loss_has_a_line():
    import kd_ext.losses

    assert {path.stem for path in PARTS.glob('*.py')} | {*EXTRA} == set(ENTRIES) == {line.loss for line in LINES}
    shells = {f'kd_ext.{name}' for name in kd_ext.losses.__all__ if name.endswith('Loss')}
    assert shells <= {entry['type'] for entry in ENTRIES.values()}


@pytest.mark.parametrize('power', [0.5, 1, 2])
def test_a_power_law_is_found(power):
    amounts = [1, 2, 4, 8, 16]
    assert fit(amounts, [3 * n**power for n in amounts]) == pytest.approx(power)
    assert fit([1], [1.0]) is None


def test_what_grows_faster_is_flagged():
    amounts = [1, 2, 4, 8, 16]
    linear, squared = ([1e-3 * n**power for n in amounts] for power in (1, 2))
    nothing = [None] * 5
    assert not judge(LINE, amounts, linear, nothing)['faster']
    assert judge(LINE, amounts, squared, nothing)['faster']
    # flat at first, squared in the end
    found = judge(LINE, amounts, [1.0, 1.0, 1.0, 4.0, 16.0], nothing)
    assert found['faster'] and found['time'] < 1.3
    assert found['time_upper_half'] == pytest.approx(2)
    memory = [16.0 * n**2 for n in amounts]
    assert judge(LINE, amounts, linear, memory)['faster']
    # peaks of a few pages say nothing
    assert judge(LINE, amounts, linear, [0.0, 1.0, 0.0, 4.0, 7.0])['memory'] is None


def test_pixels_of_an_image():
    assert amount((20, 30)) == 600 and amount(7) == 7


def test_figure(tmp_path):
    draw([dict(loss='rcka', along='batch', amounts=[1, 2], seconds=[1.0, 2.0], time=1.0)], tmp_path / 'growth.png')
    assert imread(tmp_path / 'growth.png').std() > 0


def test_tool(tmp_path):
    options = ['--only', 'kd', '--points', '3', '--repeats', '1']
    files = ['--json', tmp_path / 'g.json', '--plot', tmp_path / 'g.png']
    process = fresh_processes.run('-m', 'benchmarks.growth', *options, *files)
    assert process.returncode == 0, process.stderr
    lines = json.loads((tmp_path / 'g.json').read_text())['lines']
    assert [line['along'] for line in lines] == ['regions', 'classes']
    assert all(len(line['seconds']) == 3 for line in lines)
    assert (tmp_path / 'g.png').stat().st_size > 1000
