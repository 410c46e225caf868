"""The factor of a schedule, and what runs while a term is off."""

import math

import pytest
import torch

from kd_ext.terms import schedule as module
from kd_ext.terms.schedule import Schedule
from tests.helpers import training_clock as clock
from tests.helpers.tiny_detectors import distill, fcos, losses, rcka

NCKD = dict(type='kd_ext.NCKDLoss', at='embedding')


@pytest.fixture(autouse=True)
def no_runner():
    yield
    clock.put(None)


def factors(times, **cfg):
    schedule = Schedule.of('nd', cfg)
    return [schedule.at(time) for time in times]


@pytest.mark.parametrize(
    ('cfg', 'times', 'wanted'),
    [
        (dict(), (0, 10**9), (1, 1)),
        (dict(begin=5), (0, 4, 5, 6), (0, 0, 1, 1)),
        (dict(warmup=4), (0, 1, 3, 4, 5), (0, 0.25, 0.75, 1, 1)),
        (dict(begin=2, warmup=4), (1, 2, 3, 6), (0, 0, 0.25, 1)),
        (dict(end=7), (6, 7, 8), (1, 0, 0)),
        (dict(begin=2, warmup=2, decay='linear', end=14), (3, 4, 9, 13, 14, 99), (0.5, 1, 0.5, 0.1, 0, 0)),
        (dict(decay='linear', end=10, final=0.2), (0, 5, 10), (1, 0.6, 0.2)),
        (
            dict(decay='cosine', end=12, final=0.5),
            (0, 4, 6, 12),
            (1, 0.5 + 0.5 * (1 + math.cos(math.pi / 3)) / 2, 0.75, 0.5),
        ),
        (dict(begin=0.5, warmup=1, by_epoch=True), (0.4, 1, 1.5), (0, 0.5, 1)),
        (dict(decay='step', milestones=[6], factors=[2.5]), (0, 5, 6, 10**6), (1, 1, 2.5, 2.5)),
        (
            dict(begin=1, warmup=2, decay='step', milestones=(3, 5), factors=(0.5, 0), end=9),
            (0, 2, 3, 4, 5, 8, 9),
            (0, 0.5, 0.5, 0.5, 0, 0, 0),
        ),
        (dict(decay='step', milestones=(14.4,), factors=(2,), by_epoch=True), (14.3, 14.4), (1, 2)),
    ],
)
def test_factors(cfg, times, wanted):
    assert factors(times, **cfg) == pytest.approx(list(wanted), abs=1e-12)


@pytest.mark.parametrize(('by_epoch', 'wanted'), [(False, 8), (True, 2)])
def test_time_is_the_runners(by_epoch, wanted):
    schedule = Schedule.of('nd', dict(begin=wanted, by_epoch=by_epoch))
    clock.put(7, max_iters=12, max_epochs=3)  # four iterations an epoch
    assert schedule.factor() == 0
    clock.put(8, max_iters=12, max_epochs=3)
    assert schedule.factor() == 1


def test_every_epoch_starts_exactly_where_it_does():
    for length in (7, 49, 977):
        for epoch in range(1, 24):
            schedule = Schedule.of('nd', dict(begin=epoch, by_epoch=True))
            found = []
            for iteration in (epoch * length - 1, epoch * length):
                clock.put(iteration, max_iters=24 * length, max_epochs=24)
                found.append(schedule.factor())
            assert found == [0, 1]


@pytest.mark.parametrize('by_epoch', [False, True])
def test_without_a_runner_a_term_has_its_whole_weight(by_epoch):
    clock.put(None)
    assert Schedule.of('nd', dict(warmup=5, by_epoch=by_epoch)).factor() == 1


def test_a_term_that_never_begins_is_told_once(monkeypatch):
    told = []
    monkeypatch.setattr(module, 'print_log', lambda text, *_: told.append(text))
    schedule = Schedule.of('nd', dict(begin=12, by_epoch=True))
    for iteration in range(3):
        clock.put(iteration, max_epochs=12)
        schedule.factor()
    assert told == ['distill.nd.schedule: begins at 12 of 12 epochs: the term never acts']


@pytest.mark.parametrize(
    ('schedule', 'match'),
    [
        (5, 'schedule to be a dict of begin, warmup'),
        (
            dict(warm_up=5),
            r"schedule to be made of begin, .*got 'warm_up'.*Did "
            'you mean: warmup',
        ),
        (
            dict(warmup=-1),
            r'schedule\.warmup to be a whole number of iterations '
            '>= 0, but got -1',
        ),
        (dict(begin=-2), r'schedule\.begin to be a whole number'),
        (dict(begin=1.5), r'schedule\.begin .*got 1\.5\. by_epoch=True takes fra'),
        (dict(begin='1'), r"schedule\.begin .*got '1'"),
        (dict(begin=True), r'schedule\.begin .*got True'),
        (
            dict(warmup=float('inf'), by_epoch=True),
            r'schedule\.warmup to be a '
            'number of epochs >= 0',
        ),
        (dict(begin=5, end=5), r'schedule\.end to be after begin \+ warmup = 5'),
        (dict(begin=5, warmup=5, end=8), r'schedule\.end .* = 10, but got 8'),
        (dict(decay='stairs', end=5), r'schedule\.decay to be None or one of linear, cosine, step'),
        (dict(decay='step'), r"schedule\.milestones to be a list of times with decay='step'"),
        (dict(decay='step', milestones=5, factors=2), r'schedule\.milestones to be a list of times'),
        (dict(decay='step', milestones=[5]), r'schedule\.factors to be 1 numbers >= 0, one per milestone'),
        (dict(decay='step', milestones=[5], factors=[-1]), r'schedule\.factors .*got \[-1\]'),
        (dict(decay='step', milestones=[5], factors=[10**400]), r'schedule\.factors to be 1 numbers'),
        (dict(decay='step', milestones=[5, 5], factors=[1, 2]), r'schedule\.milestones to be rising'),
        (
            dict(warmup=6, decay='step', milestones=[5], factors=[2]),
            r'schedule\.milestones to be rising, from .* = 6 on',
        ),
        (dict(decay='step', milestones=[5.5], factors=[2]), r'schedule\.milestones .*by_epoch=True takes fractions'),
        (dict(decay='step', milestones=[5], factors=[2], end=5), r'schedule\.end to be after the last milestone'),
        (dict(decay='step', milestones=[5], factors=[2], final=0.5), r'schedule\.final to be left out without'),
        (dict(milestones=[5], factors=[2]), r"schedule\.milestones to be left out without decay='step'"),
        (dict(factors=2), r"schedule\.factors to be left out without decay='step'"),
        (dict(decay=['linear'], end=5), r'schedule\.decay to be None or one'),
        (dict(decay='linear'), r"schedule\.end to be given with decay='linear'"),
        (dict(end=5, final=0.1), r'schedule\.final to be left out without decay'),
        (dict(decay='linear', end=5, final=2), r'schedule\.final to be a num'),
        (dict(by_epoch=1), r'schedule\.by_epoch to be True or False'),
    ],
)
def test_bad_schedules(schedule, match):
    with pytest.raises(ValueError, match=rf'distill\.rcka\.{match}'):
        distill(rcka=rcka(schedule=schedule))


def calls(model):
    """A list that grows by one at each pass of the teacher's backbone."""
    ran = []
    model.teacher.backbone.register_forward_pre_hook(lambda *args: ran.append(1))
    return ran


def state(model):
    return {key: value.clone() for key, value in model.distiller.named_buffers()}


def test_the_teacher_rests_while_every_term_is_off():
    model = distill(
        teacher=fcos(8, width=24),
        rcka=rcka(schedule=dict(begin=2, end=4)),
        nckd=dict(NCKD, schedule=dict(begin=3, warmup=2, end=6)),
    )
    ran, keys, passes = calls(model), set(), []
    for iteration in range(7):
        clock.put(iteration)
        before, count = state(model), len(ran)
        values = losses(model)
        passes.append(len(ran) - count)
        keys.add(frozenset(values))
        moved = any(not torch.equal(value, before[key]) for key, value in state(model).items())
        assert moved is (iteration in (4, 5))  # 3 is where the warm-up is 0
        model.zero_grad()
        model.parse_losses(values)[0].backward()
        assert all(p.grad is not None for p in model.distiller.parameters())
        terms = [float(values[f'distill.loss_{name}'].detach()) for name in ('rcka', 'nckd_nc1')]
        assert [term > 0 for term in terms] == [iteration in (2, 3), iteration in (4, 5)]
        assert float(values['distill.factor_nckd']) == [0, 0, 0, 0, 0.5, 1, 0][iteration]
    assert passes == [0, 0, 1, 1, 1, 1, 0]
    assert len(keys) == 1  # the log has the same columns throughout


def test_entries_without_schedules_are_as_before():
    model = distill()
    clock.put(0)
    assert not any('factor' in key for key in losses(model))
    assert not list(model.distiller.buffers())


def test_razors_stop_hook_stands_above_schedules():
    model = distill(rcka=rcka(schedule=dict(end=50), balance=0.2))
    clock.put(3)
    assert float(losses(model)['distill.factor_rcka']) > 0
    model.distillation_stopped = True
    ran, before = calls(model), state(model)
    values = losses(model)
    assert not ran and float(values['distill.factor_rcka']) == 0
    assert all(torch.equal(value, before[key]) for key, value in state(model).items())


@pytest.mark.parametrize('name', ['loss_rcka', 'rckaloss'])
def test_a_name_that_would_add_its_share_to_the_total(name):
    with pytest.raises(ValueError, match="without 'loss' in it, but got"):
        distill(**{name: rcka()})


def test_steps_reach_the_log_and_the_loss():
    model = distill(rcka=rcka(schedule=dict(decay='step', milestones=[2, 4], factors=[3.0, 0.0])))
    model.eval()  # the same loss in each step
    values = []
    for iteration in range(5):
        clock.put(iteration)
        found = losses(model)
        values.append([float(found[f'distill.{key}_rcka'].detach()) for key in ('loss', 'factor')])
    assert [factor for _, factor in values] == [1, 1, 3, 3, 0]
    assert [loss for loss, _ in values] == pytest.approx([values[0][0] * factor for factor in (1, 1, 3, 3, 0)])
