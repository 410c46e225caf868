"""A term kept at a share of the task loss."""

import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch

from kd_ext.terms.weighting import MOMENTUM, Weighting
from tests.helpers import training_clock as clock
from tests.helpers.data_sets import ROOT
from tests.helpers.short_trainings import config, save_teacher, train
from tests.helpers.tiny_detectors import batch, distill, fcos, losses, rcka


@pytest.fixture(autouse=True)
def no_runner():
    yield
    clock.put(None)


def step(weighting, task, *values):
    terms = {f'loss_t{k}': torch.tensor(v) for k, v in enumerate(values)}
    found = weighting(terms, torch.tensor(task))
    assert found.keys() == {*terms, 'factor_t'}
    return [float(value) for value in found.values()]


def test_factors_by_hand():
    weighting = Weighting('t', balance=0.2)
    # means 2 and 4; then (2 + 6) / 2 = 4 and (4 + 12) / 2 = 8
    assert step(weighting, 2.0, 1.0, 3.0) == pytest.approx([0.1, 0.3, 0.1])
    assert step(weighting, 6.0, 12.0, 0.0) == pytest.approx([1.2, 0.0, 0.1])
    # means 5 and 6: .2 * 5 / 6
    assert step(weighting, 7.0, 2.0, 0.0)[-1] == pytest.approx(1 / 6)


def test_means_over_long_runs_forget():
    weighting = Weighting('t', balance=0.5)
    for _ in range(60):
        step(weighting, 1.0, 1.0)
    before = float(weighting.means[1])
    step(weighting, 1.0, 2.0)
    assert float(weighting.means[1]) == pytest.approx(before + MOMENTUM)


def test_zero_stays_zero_and_is_not_counted():
    weighting = Weighting('t', balance=0.2)
    assert step(weighting, 3.0, 0.0, 0.0) == [0, 0, 0]
    assert step(weighting, 4.0, 8.0)[-1] == pytest.approx(0.1)
    for _ in range(200):
        assert step(weighting, 4.0, 0.0) == pytest.approx([0, 0.1])
    assert step(weighting, 4.0, 8.0)[-1] == pytest.approx(0.1)


def test_rounding_errors_are_not_blown_up():
    assert step(Weighting('t', balance=0.2), 3.0, 1e-12)[0] < 1e-6


@pytest.mark.parametrize('task', [float('nan'), float('inf')])
def test_an_overflow_is_left_out(task):
    weighting = Weighting('t', balance=0.2)
    step(weighting, 4.0, 8.0)
    assert step(weighting, task, 1.0) == pytest.approx([0.1, 0.1])


def test_in_eval_mode_nothing_is_stored():
    weighting = Weighting('t', balance=0.2)
    step(weighting, 4.0, 8.0)
    assert step(weighting.eval(), 9.0, 1.0)[-1] == pytest.approx(0.1)
    assert int(weighting.steps) == 1


def test_gradient_is_the_terms_times_the_factor():
    x = torch.tensor(3.0, requires_grad=True)
    weighting = Weighting('t', balance=0.2)
    weighting(dict(loss_t=x * x), torch.tensor(9.0))['loss_t'].backward()
    assert float(x.grad) == pytest.approx(0.2 * 6)


def test_a_weight_is_chosen_once():
    weighting = Weighting('t', balance=dict(share=0.2, steps=2))
    step(weighting, 2.0, 4.0)
    step(weighting, 2.0, 0.0)  # does not count
    assert not weighting.chosen
    assert step(weighting, 6.0, 12.0)[-1] == pytest.approx(0.1)
    assert weighting.chosen
    for task in (100.0, 0.01, float('nan')):
        assert step(weighting, task, 1.0) == pytest.approx([0.1, 0.1])
    assert int(weighting.steps) == 2


def test_a_chosen_weight_is_said_once(capsys):
    from mmengine.logging import MMLogger

    MMLogger.get_instance('balance', logger_name='balance', log_level='INFO')
    weighting = Weighting('t', balance=dict(share=0.2, steps=1))
    for _ in range(3):
        step(weighting, 4.0, 8.0)
    found = capsys.readouterr()
    assert (found.out + found.err).count('distill.t: factor 0.1 chosen after 1 steps, for 0.2 of the task loss') == 1


def test_a_resumed_run_keeps_the_chosen_weight():
    before = Weighting('t', balance=dict(share=0.2, steps=2))
    for _ in range(2):
        step(before, 4.0, 8.0)
    after = Weighting('t', balance=dict(share=0.2, steps=2))
    after.load_state_dict(before.state_dict())
    assert step(after, 50.0, 1.0)[-1] == pytest.approx(0.1)
    assert torch.equal(after.means, before.means) and after.chosen


@pytest.mark.parametrize(
    'balance, name',
    [
        (dict(share=0.2), 'share=, steps='),
        (dict(share=0.2, steps=0), 'steps to be an integer >= 1'),
        (dict(share=0.2, steps=True), 'steps to be an integer >= 1'),
        (dict(share=-1, steps=5), 'balance.share to be a number > 0'),
    ],
)
def test_bad_steps(balance, name):
    with pytest.raises(ValueError, match=re.escape(name)):
        distill(rcka=rcka(balance=balance))


def test_schedule_and_balance_multiply():
    clock.put(1)
    weighting = Weighting('t', dict(warmup=4), 0.2)
    assert step(weighting, 4.0, 8.0) == pytest.approx([0.2, 0.025])


@pytest.mark.parametrize('balance', [0, -0.1, 10, '0.2', True, float('nan')])
def test_bad_balance(balance):
    with pytest.raises(
        ValueError,
        match=r'distill\.rcka\.balance to be a '
        'number > 0 and < 10',
    ):
        distill(rcka=rcka(balance=balance))


def test_share_in_a_training():
    model = distill(
        teacher=fcos(8, width=24),
        rcka=rcka(balance=0.2, loss_weight=7.0),
        nd=dict(type='kd_ext.NDLoss', at='embedding', balance=0.5),
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.0005)
    sums = torch.zeros(3)
    for iteration in range(60):
        total, log = model.parse_losses(losses(model, batch(seed=iteration % 5)))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if iteration >= 10:
            terms = [log[f'distill.loss_{name}'] for name in ('rcka', 'nd')]
            sums += torch.stack([total - sum(terms), *terms]).detach()
    assert float(sums[1] / sums[0]) == pytest.approx(0.2, rel=0.05)
    assert float(sums[2] / sums[0]) == pytest.approx(0.5, rel=0.05)


ENTRIES = dict(
    rcka=rcka(balance=0.2, schedule=dict(warmup=2, decay='cosine', end=4)),
    nckd=dict(
        type='kd_ext.NCKDLoss', at='embedding', balance=0.3, schedule=dict(begin=0.5, warmup=1.0, by_epoch=True)
    ),
)
FACTORS = [f'train/distill.factor_{name}' for name in ENTRIES]


@pytest.mark.slow
def test_resumed_equals_uninterrupted(shapes, tmp_path):
    teacher_ckpt, found = save_teacher(tmp_path), {}
    for name in ('whole', 'parts'):
        cfg = config(shapes, tmp_path / name, teacher_ckpt)
        cfg.model.distill = ENTRIES
        if name == 'parts':
            cfg.merge_from_dict(dict(resume=True, load_from=str(tmp_path / 'whole/epoch_1.pth')))
        runner = train(cfg)
        state = torch.load(tmp_path / name / 'epoch_2.pth')['state_dict']
        found[name] = {
            **state,
            **state._metadata['']['kd_ext'],
            **{key: torch.tensor(runner.message_hub.get_scalar(key).data[0]) for key in FACTORS},
        }
    whole, parts = found.values()
    assert whole.keys() == parts.keys()
    assert int(whole['weightings.rcka.steps']) == 3  # not at factor 0
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=0, atol=0)
    for key in FACTORS:  # two epochs of two iterations
        assert whole[key].shape == (4,) and whole[key][3] > 0


SCRIPT = textwrap.dedent("""
    import sys
    import torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    import kd_ext
    from mmengine.logging import MMLogger
    MMLogger.get_instance('x', logger_name='x', log_level='ERROR')
    from mmengine.model import MMDistributedDataParallel
    from tests.helpers import training_clock as clock
    from tests.helpers.tiny_detectors import batch, distill, fcos, rcka
    dist.init_process_group('gloo')
    rank = dist.get_rank()

    def gathered(value):
        both = [torch.zeros_like(value) for _ in range(2)]
        dist.all_gather(both, value)
        return both

    nckd = dict(type='kd_ext.NCKDLoss', at='embedding', balance=.3,
                schedule=dict(begin=2, end=4))
    model = distill(teacher=fcos(8, width=24), nckd=nckd,
                    rcka=rcka(balance=.2, schedule=dict(begin=1, end=3)))
    wrapped = MMDistributedDataParallel(model)
    for step in range(5):
        clock.put(step)
        data = batch(seed=step * 2 + rank)
        if rank == 1 and step == 2:  # images without a single box
            for sample in data['data_samples']:
                sample.gt_instances = sample.gt_instances[:0]
        data = model.data_preprocessor(data, True)
        losses = wrapped(**data, mode='loss')
        wrapped.zero_grad()
        total, log = model.parse_losses(losses)
        total.backward()
        projectors = list(model.distiller.parameters())
        assert projectors and all(p.grad is not None for p in projectors)
        for name, acts in (('rcka', step in (1, 2)), ('nckd', step in (2, 3))):
            one, two = gathered(losses[f'distill.factor_{name}'])
            assert torch.equal(one, two) and bool(one > 0) is acts
        for name, buffer in model.distiller.named_buffers():
            assert torch.equal(*gathered(buffer)), name
        if step == 1:  # the mean over both ranks is at its share
            term = sum(gathered(log['distill.loss_rcka'].detach()))
            task = sum(gathered(
                (total - log['distill.loss_rcka']).detach()))
            torch.testing.assert_close(term / task, torch.tensor(.2))
    print('rank', rank, 'done', flush=True)
    # a rank that goes while gloo's threads still run is aborted by them
    dist.barrier()
    dist.destroy_process_group()
""")


@pytest.mark.slow
def test_factors_are_equal_on_both_ranks(tmp_path):
    script = tmp_path / 'ddp.py'
    script.write_text(SCRIPT)
    result = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            '--master_port=29547',
            str(script),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=280,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('done') == 2
