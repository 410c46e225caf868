"""Interrupting real, tiny trainings by real signals."""

import os
import signal
import sys

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from kd_ext.engine import interruption as interrupt
from kd_ext.engine.interruption import Interruption, train

EPOCH = 5  # iterations


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        loss = self.net(inputs).pow(2).mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


class NoEvaluator(Evaluator):
    def __init__(self):
        super().__init__([])

    def process(self, *args, **kwargs):
        pass

    def evaluate(self, size):
        return dict(score=1.0)


class Seen(Hook):
    """Learning rates by iteration; sends the signal where it is told to."""

    def __init__(self, signum=None, at=None, in_validation=False):
        self.signum, self.at, self.in_validation = signum, at, in_validation
        self.rates = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        rate = runner.optim_wrapper.get_lr()['lr'][0]
        self.rates.setdefault(runner.iter, round(rate, 8))
        if runner.iter == self.at and not self.in_validation:
            os.kill(os.getpid(), self.signum)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at and self.in_validation:
            os.kill(os.getpid(), self.signum)


@pytest.fixture
def interruption():
    handlers = {one: signal.getsignal(one) for one in (*interrupt.SIGNALS, signal.SIGCHLD)}
    yield Interruption()
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def loader(count, sampler=DefaultSampler):
    data = list(torch.rand(2 * count, 2))
    return DataLoader(
        data, batch_size=2, sampler=sampler(data), collate_fn=lambda rows: dict(inputs=torch.stack(rows))
    )


def runner(work_dir, seen, by_epoch=True, hooks=(), **kwargs):
    torch.manual_seed(0)
    train_cfg = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=12, val_interval=6)
    sampler = DefaultSampler if by_epoch else InfiniteSampler
    return Runner(
        Toy(),
        str(work_dir),
        loader(EPOCH, sampler),
        loader(4),
        train_cfg=train_cfg,
        val_cfg=dict(),
        val_evaluator=NoEvaluator(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=8),
            dict(type='MultiStepLR', milestones=[2], by_epoch=by_epoch),
        ],
        default_hooks=dict(checkpoint=None, logger=None),
        custom_hooks=[seen, *hooks],
        log_level='ERROR',
        experiment_name=f'{work_dir.name}{len(os.listdir(work_dir))}',
        **kwargs,
    )


def interrupted(interruption, tmp_path, *args, **kwargs):
    one = runner(tmp_path, *args, **kwargs)
    with pytest.raises(interrupt.Interrupted, match='--resume') as info:
        train(one, interruption)
    checkpoint = torch.load(tmp_path / 'interrupted.pth')
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'interrupted.pth')
    assert not list(tmp_path.glob('*.part'))
    return one, info.value, checkpoint


@pytest.fixture
def whole(tmp_path_factory):
    """Learning rates of a training that nothing interrupts."""

    def rates(**kwargs):
        seen = Seen()
        runner(tmp_path_factory.mktemp('whole'), seen, **kwargs).train()
        return seen.rates

    return rates


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_by_epoch(interruption, tmp_path, whole, signum):
    one, stop, checkpoint = interrupted(interruption, tmp_path, Seen(signum, at=7))
    assert stop.signum == signum
    assert 'the start of epoch 2' in str(stop)
    assert one.iter == 7  # the step that was running was finished
    assert checkpoint['meta']['epoch'] == 1
    assert checkpoint['meta']['iter'] == EPOCH
    weights = one.model.state_dict()['net.weight']
    assert torch.equal(checkpoint['state_dict']['net.weight'], weights)

    seen = Seen()
    again = runner(tmp_path, seen, resume=True)
    again.train()
    assert again.iter == 3 * EPOCH
    rates = whole()
    assert seen.rates == {at: rates[at] for at in range(EPOCH, 3 * EPOCH)}


def test_by_iteration(interruption, tmp_path, whole):
    _, stop, checkpoint = interrupted(interruption, tmp_path, Seen(signal.SIGTERM, at=4), by_epoch=False)
    assert 'iteration 6' in str(stop)
    assert checkpoint['meta']['iter'] == 5
    seen = Seen()
    runner(tmp_path, seen, by_epoch=False, resume=True).train()
    rates = whole(by_epoch=False)
    assert seen.rates == {at: rates[at] for at in range(5, 12)}


def test_last_step_of_an_epoch(interruption, tmp_path):
    # the epoch ends, with its hooks and its validation, and is not repeated
    _, stop, checkpoint = interrupted(interruption, tmp_path, Seen(signal.SIGINT, at=EPOCH - 1))
    assert checkpoint['meta']['epoch'] == 1
    assert checkpoint['meta']['iter'] == EPOCH


def test_in_validation_with_ema(interruption, tmp_path):
    one, _, checkpoint = interrupted(
        interruption, tmp_path, Seen(signal.SIGINT, at=EPOCH, in_validation=True), hooks=[EMAHook(momentum=0.5)]
    )
    assert checkpoint['meta']['epoch'] == 1
    assert checkpoint['meta']['iter'] == EPOCH
    # MMEngine's files hold the average as state_dict, the trained weights
    # in ema_state_dict; the model has its trained weights back
    trained = one.model.state_dict()['net.weight']
    kept = checkpoint['ema_state_dict']['module.net.weight']
    assert torch.equal(trained, kept)
    assert not torch.equal(checkpoint['state_dict']['net.weight'], kept)


def test_parameter_groups_get_their_rates_back(interruption, tmp_path):
    # MMEngine keeps a further group, for the log, beside those of torch
    seen = Seen(signal.SIGINT, at=7)
    one = runner(tmp_path, seen)
    one.optim_wrapper['paramwise_cfg'] = dict(bias_lr_mult=2.0)
    with pytest.raises(interrupt.Interrupted):
        train(one, interruption)
    optimizer = torch.load(tmp_path / 'interrupted.pth')['optimizer']
    rates = [group['lr'] for group in optimizer['param_groups']]
    assert rates == pytest.approx([seen.rates[EPOCH], 2 * seen.rates[EPOCH]])
    assert optimizer['base_param_settings']['lr'] == pytest.approx(seen.rates[EPOCH])


def test_dead_worker_after_a_signal(interruption, tmp_path, monkeypatch):
    """A signal to all processes ends the data workers too."""
    one = runner(tmp_path, Seen())
    real = one.train

    def broken_train():
        iteration = type(one.train_dataloader).__iter__

        def broken(self):
            for index, batch in enumerate(iteration(self)):
                if index == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                    raise RuntimeError('DataLoader worker (pid(s) 1) exited unexpectedly')
                yield batch

        monkeypatch.setattr(type(one.train_dataloader), '__iter__', broken)
        real()

    monkeypatch.setattr(one, 'train', broken_train)
    with pytest.raises(interrupt.Interrupted):
        train(one, interruption)
    meta = torch.load(tmp_path / 'interrupted.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (0, 0)


def test_no_signal_no_file(interruption, tmp_path):
    train(runner(tmp_path, Seen()), interruption)
    assert not (tmp_path / 'interrupted.pth').exists()


def test_at_once(interruption, monkeypatch, capsys):
    monkeypatch.setattr(os, '_exit', sys.exit)
    with pytest.raises(SystemExit) as info:  # before training
        os.kill(os.getpid(), signal.SIGTERM)
    assert info.value.code == 143 and not interruption.signum

    interruption.can_save = True
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)  # the launcher's copy of the first
    assert interruption.signum == signal.SIGINT
    interruption._first_time -= interrupt.ECHO_SECONDS
    with pytest.raises(SystemExit) as info:
        os.kill(os.getpid(), signal.SIGINT)
    assert info.value.code == 130
    assert 'nothing was saved' in capsys.readouterr().out
