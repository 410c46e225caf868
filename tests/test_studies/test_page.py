"""Choice of weights, the gate, and the page, from figures by hand."""

from dataclasses import replace

import pytest

from studies import setting
from studies.cells import Cell, Choice, trials
from studies.gate import FAILED, OPEN, PASSED, judge
from studies.page import page, visible
from studies.report import PAGE, collect, main
from studies.results import FOLDER, Results

SHARE = dict(kl=0.1, pkd=0.3, cwd=0.3, reviewkd=0.6, rcka=0.6)
# mean points of each arm; seeds add 0, 0.1 .. 0.4
MEANS = dict(alone=6.0, alone_x3=6.2, kl=5.0, pkd=40.0, cwd=33.0, reviewkd=30.0, rcka=42.0, rcka_default=36.0)


def figures(value, curve=None, **changes):
    return dict(
        digest='d',
        metric=value,
        metrics=None,
        curve=curve or [[10, value / 2], [40, value], [60, value]],
        shares={},
        iterations=780,
        seconds=100.0,
        seconds_per_step=0.1,
        attempts=1,
        commit='abc1234',
        versions=dict(torch='2.13.0'),
        hardware=dict(cpu='CPU', cores=2, gpu=None, threads=1),
        **changes,
    )


@pytest.fixture
def results():
    """Few labels with controls, RCKA, and all seeds."""
    declared = setting.load('few_labels')
    declared = replace(declared, arms={name: declared.arms[name] for name in [*MEANS, 'nd']})
    found = Results(declared, figures(64.8))
    for name, mean in MEANS.items():
        arm, choice = declared.arms[name], Choice()
        if arm.searched:
            choice = Choice('', SHARE[name])
            for tried, cells in trials(declared, arm).items():
                for cell in cells:
                    found.add(cell, figures(mean - 10 * abs(tried.share - choice.share)))
        for index, seed in enumerate(declared.seeds):
            # the arm's own differences are not all the same
            value = mean + 0.1 * index * (2 if arm.distils else 1)
            found.add(Cell(arm, seed, choice), figures(round(value, 3)))
    return found


def without(results, arm, seed):
    results.cells = [one for one in results.cells if (one['arm'], one['seed']) != (arm, seed)]


def test_search_chooses_the_best_mean(results):
    for name, share in SHARE.items():
        assert results.choice(name) == Choice('', share)
    assert results.choice('alone') == Choice()
    assert results.choice('nd') is None  # its search did not run
    without(results, 'pkd', 101)
    assert results.choice('pkd') is None and results.searched('pkd')['chosen'] is None


def test_tuning_seeds_are_not_reported(results):
    assert set(results.metric('pkd')) == {0, 1, 2, 3, 4}
    assert all(one['choice']['share'] == 0.3 and one['split'] == 'test' for one in results.of('pkd'))


def test_gate_passes(results):
    gate = judge(results)
    assert gate.verdict == PASSED
    assert '58.6' in gate.conditions[0].text  # 64.8 - 6.2
    assert gate.conditions[3].text.endswith('pkd, cwd, reviewkd')


@pytest.mark.parametrize(
    'change,index',
    [
        (dict(points=60), 0),
        (dict(deviations=400), 1),  # s = 0.158, 58.6 / s = 371
        (dict(controls=4), 3),
    ],
)
def test_gate_fails(results, change, index):
    results.setting = replace(results.setting, gate=replace(results.setting.gate, **change))
    gate = judge(results)
    assert gate.verdict == FAILED
    assert [number for number, one in enumerate(gate.conditions) if not one.holds] == [index]


def test_gate_fails_on_a_curve_that_still_moves(results):
    for one in results.of('alone'):
        one['curve'] = [[10, 1.0], [40, 5.0], [50, 5.5], [60, 6.2]]
    gate = judge(results)
    # from 40, the last validation before the last quarter, to 60
    assert gate.verdict == FAILED and '+1.20' in gate.conditions[2].text


def test_gate_waits_for_all_seeds(results):
    without(results, 'alone', 4)
    assert judge(results).verdict == OPEN


def test_page_shows_seeds_intervals_and_verdicts(results):
    text = page([results], 'evidence')
    # differences 34.0 .. 34.4: s = 0.15811, s / sqrt(5) = 0.070711, times 2.77645 = 0.1963, times 3.71741 = 0.2629
    row = next(line for line in text.splitlines() if line.startswith('| PKD | 40.0'))
    assert row.startswith(
        '| PKD | 40.0 | 40.2 | 40.4 | 40.6 | 40.8 | 40.4 | +34.2 [+34.0, +34.4] | 0.3 | 58% | helps |'
    )
    assert '| KL on logits | harms (-0.8) |' in text and '| RCKA | helps (+36.2) |' in text
    assert '| ND | not run |' in text and '| ND |  |  |  |  |  | not run |' not in text.split('## Few')[0]
    assert '| PKD | 0.3 | 40.0, 40.0 | 40.0 | chosen |' in text
    assert '| RCKA | 100 | 0.100 | 1.00 | 1.00 |' in text


def test_page_compares_a_chosen_weight_with_the_searched_one(results):
    text = page([results], 'evidence')
    # gains 36.2 and 30.2
    assert '| RCKA, weight chosen in the training | +30.2 | +36.2 | 83% |' in text
    results.cells = [one for one in results.cells if one['arm'] != 'rcka']
    assert 'Weights that the training chooses by itself' not in page([results], 'evidence')


def test_ours_are_held_back_until_the_gate_has_passed(results):
    without(results, 'kl', 0)
    without(results, 'alone', 0)
    assert 'rcka' not in visible(results) and 'pkd' in visible(results)
    text = page([results], 'evidence')
    assert '42.0' not in text and '| RCKA | held back |' in text
    assert (
        'Figures of RCKA, RCKA, weight chosen in the training are held back, as the gate is not computed yet.' in text
    )
    assert '| PKD | 4 of 5 seeds |' in text


def test_settings_that_did_not_run_are_called_so(tmp_path):
    text = page(collect(tmp_path), 'evidence')
    assert 'It was not run: `python -m studies.run few_labels`.' in text
    assert 'It cannot run yet.' not in text
    assert len([line for line in text.splitlines() if line.startswith('## ')]) == 1 + len(setting.names())


def test_written_and_read(results, tmp_path):
    results.setting = setting.load('few_labels')
    results.write(tmp_path, gate=judge(results).to_dict())
    again = Results.read(setting.load('few_labels'), tmp_path)
    assert again.teacher == results.teacher and again.cells == results.cells and not again.outdated
    assert page([again], 'evidence') == page([results], 'evidence')
    other = Results.read(replace(setting.load('few_labels'), seeds=[0, 1]), tmp_path)
    assert other.outdated and 'declaration has changed' in page([other], 'evidence')


def test_command_writes_page_and_figure(results, tmp_path):
    results.setting = setting.load('few_labels')
    results.write(tmp_path, gate={})
    main(['--results', str(tmp_path), '--out', str(tmp_path / 'docs/evidence.md')])
    assert (tmp_path / 'docs/evidence/few_labels.png').stat().st_size < 200_000
    assert '(evidence/few_labels.png)' in (tmp_path / 'docs/evidence.md').read_text()


def test_page_in_the_repository_is_the_generated_one():
    found = collect(FOLDER)
    assert PAGE.read_text() == page(found, PAGE.stem), 'Run python -m studies.report.'
    for results in found:
        if any(results.of(name) for name in results.setting.arms):
            assert (PAGE.with_suffix('') / f'{results.setting.name}.png').exists()
