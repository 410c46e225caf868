import pytest
import torch
from torch.testing import assert_close

from benchmarks.loss_cases import CASES
from benchmarks.loss_rivals import formed_lipschitz_loss, loop_nd_loss, loop_rcka_loss, svd_lipschitz_loss
from benchmarks.timing import interleave, machine, peak_memory, summarise
from kd_ext.losses.lipschitz_loss import lipschitz_loss
from kd_ext.losses.nd_loss import nd_loss
from kd_ext.losses.rcka_loss import rcka_loss


def test_rivals_compute_the_same():
    # a comparison of speed with something else would be worth nothing
    student, teacher = torch.randn(2, 2, 3, 20, 35)
    for inter in (0.0, 1.0):
        assert_close(loop_rcka_loss(student, teacher, 8, inter), rcka_loss(student, teacher, 8, 1.0, inter, False))
    student, teacher = ([torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4), torch.rand(2, 8, 2, 2)] for _ in range(2))
    for rival in (formed_lipschitz_loss, svd_lipschitz_loss):
        assert_close(rival(student, teacher), lipschitz_loss(student, teacher), rtol=1e-3, atol=1e-6)
    args = (*torch.rand(2, 9, 5), torch.randint(4, (9,)), torch.rand(4, 5))
    assert_close(loop_nd_loss(*args), nd_loss(*args))


@pytest.mark.parametrize('name', sorted(CASES))
def test_every_case_runs(name):
    case = CASES[name]('cpu', 128)
    assert 'mse' in case.candidates and set(case.slow) < set(case.candidates)
    for key, run in case.candidates.items():
        if key not in case.slow:
            run()


def test_interleave_runs_side_by_side():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in ('mse', 'ours', 'loop')}
    times = interleave(candidates, 3, dict(loop=1))
    # each turn twice, of which one counts; the slow one comes last: it would
    # change the others' memory
    turns = ['mse', 'ours', 'ours', 'mse', 'mse', 'ours']
    assert calls == [name for turn in turns for name in 2 * [turn]] + ['loop']
    assert [len(times[name]) for name in candidates] == [3, 3, 1]


def test_summary_is_of_ratios_within_a_repeat():
    # the machine slows down three times over: the ratio stays 2
    rows = summarise(dict(mse=[1.0, 2.0, 3.0], ours=[2.0, 4.0, 6.0]), 'mse')
    assert rows['ours']['ratio'] == 2
    assert rows['ours']['median_ms'] == 4000
    assert rows['ours']['ratio_quartiles'] == [2, 2]


def test_memory_of_a_run():
    def take():
        torch.ones(2**24).sum()  # 64 MiB

    take()
    peak = peak_memory(take)
    if peak is None:
        pytest.skip('peak memory cannot be read on this system')
    assert 60 < peak < 80


def test_machine_is_described():
    described = machine()
    assert described['cpu'] and described['threads'] >= 1
    assert described['torch'] == torch.__version__
