"""Ctrl-C and SIGTERM during training: a checkpoint first, then the end.

The signal only sets a flag. The loop stops at the next point where weights, optimizer and schedules agree: between
two iterations, between two epochs, or inside a validation. From ``interrupted.pth`` ``--resume`` goes on, here and
in mmdet's own tools:

* iteration-based training goes on with the next iteration;
* epoch-based training repeats the interrupted epoch from its start, with the weights reached and the schedules as
  they were at that start, because MMEngine's loop knows no place inside an epoch.

A second signal, 3 seconds or more after the first, ends the process at once.
"""

from __future__ import annotations

import copy
import os
import signal
import time
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from kd_ext.build.configs import distills
from kd_ext.engine.publish_hook import PublishStudentHook
from kd_ext.engine.whole_files import write_text
from kd_ext.errors import expected

NAME = 'interrupted.pth'
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# a terminal signals the processes and their launcher, which passes it on
ECHO_SECONDS = 3


class Interrupted(BaseException):
    """Ends a run; its text says what was saved and how to go on."""

    def __init__(self, signum: int, text: str) -> None:
        super().__init__(text)
        self.signum = signum


class Interruption:
    """Handles SIGINT and SIGTERM by setting a flag.

    Args:
        saved: What is written before the end, for the message.
    """

    def __init__(self, saved: str = 'a checkpoint') -> None:
        self.saved = saved
        self.signum = 0
        self.can_save = False
        self._first_time = 0.0
        self._pid = os.getpid()
        for signum in SIGNALS:
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            self._in_child(signum)
            return
        now = time.monotonic()
        if self.signum and now - self._first_time < ECHO_SECONDS:
            return
        if self.signum or not self.can_save:
            # not by an exception: MMEngine has places that swallow any
            if dist.is_main_process():
                print('\nInterrupted; nothing was saved.', flush=True)
            os._exit(128 + signum)
        self.signum, self._first_time = signum, now
        # a signal to all processes ends the data workers too, and torch's handler of that would raise in a step
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if dist.is_main_process():
            print(
                f'\nInterrupted: {self.saved} is saved when this step ends. Interrupt again to end without it.',
                flush=True,
            )

    def _in_child(self, signum: int) -> None:
        # a forked data worker leaves Ctrl-C to its parent; SIGTERM is how multiprocessing ends a child
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def agreed(self) -> bool:
        """Whether any rank was signalled; the same answer on each."""
        if dist.get_world_size() > 1:
            flag = torch.tensor(self.signum)
            dist.all_reduce(flag, 'max')
            self.signum = int(flag)
        return bool(self.signum)


def train(runner: Runner, interruption: Interruption) -> None:
    """``runner.train()`` that can be interrupted. A training that distills gets a :class:`PublishStudentHook`."""
    if distills(runner.cfg.get('model')) and not any(isinstance(one, PublishStudentHook) for one in runner.hooks):
        runner.register_hook(PublishStudentHook())
    hook = InterruptHook(interruption)
    runner.register_hook(hook)
    try:
        runner.train()
    except RuntimeError as error:
        text = str(error)
        if not text.startswith('DataLoader worker'):
            raise
        # this one is raised where the next batch is fetched: between steps
        if 'exited unexpectedly' in text and interruption.signum and dist.get_world_size() == 1:
            hook.stop(runner, runner.iter)
        raise RuntimeError(
            expected(
                'the processes that read the data',
                'alive',
                text.strip(' .'),
                'Mostly the memory ran out: lower train_dataloader.num_workers '
                'or batch_size, or enlarge /dev/shm. --resume goes on from the '
                'last checkpoint.',
            )
        ) from error


class InterruptHook(Hook):
    """Saves and stops where the flag is set, as the last of the hooks."""

    priority = 'LOWEST'

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        self.epoch_start: dict[str, Any] | None = None  # the state there, inside an epoch
        self.in_validation = False
        self._schedules: dict[str, Any] | None = None  # for the next checkpoint

    def before_train(self, runner: Runner) -> None:
        self.interruption.can_save = True

    def after_train(self, runner: Runner) -> None:
        self.interruption.can_save = False

    def before_train_epoch(self, runner: Runner) -> None:
        if self.interruption.agreed():
            self.stop(runner, runner.iter)
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self.epoch_start = _schedule_state(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self.epoch_start = None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        at_end_of_epoch = self.epoch_start is not None and batch_idx + 1 == len(runner.train_dataloader)
        if not at_end_of_epoch and self.interruption.agreed():
            self.stop(runner, runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        self.in_validation = True

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        # several ranks cannot agree here, as the last may have a batch less; they do at the next training step
        if self.interruption.signum and dist.get_world_size() == 1:
            self.stop(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.in_validation = False

    def stop(self, runner: Runner, iters_done: int) -> None:
        """Writes the checkpoint.

        Raises:
            Interrupted: Always.
        """
        if self.in_validation:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # puts trained weights back
                    hook.after_val_epoch(runner)
        handlers = [signal.signal(one, signal.SIG_IGN) for one in SIGNALS]
        try:
            path = self._save(runner, iters_done)
        finally:
            for signum, handler in zip(SIGNALS, handlers):
                signal.signal(signum, handler)
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        place = f'the start of epoch {runner.epoch + 1}' if by_epoch else f'iteration {iters_done + 1}'
        raise Interrupted(
            self.interruption.signum,
            f'Interrupted; saved {path}.\nCall the same command with --resume to go on from {place}.',
        )

    def _save(self, runner: Runner, iters_done: int) -> str:
        if self.epoch_start is not None:
            iters_done = self.epoch_start['iter']
            self._schedules = self.epoch_start
        path = os.path.join(runner.work_dir, NAME)
        runner.save_checkpoint(runner.work_dir, NAME, meta=dict(epoch=runner.epoch, iter=iters_done))
        if dist.is_main_process():
            write_text(os.path.join(runner.work_dir, 'last_checkpoint'), path)
        dist.barrier()
        return path

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        schedules, self._schedules = self._schedules, None
        if schedules is None:
            return
        if schedules['param_schedulers'] is not None:
            checkpoint['param_schedulers'] = schedules['param_schedulers']
        optimizer = checkpoint['optimizer']
        # the order of OptimWrapper.param_groups
        groups = [*optimizer.get('param_groups', ()), optimizer.get('base_param_settings') or {}]
        for group, values in zip(groups, schedules['param_groups']):
            group.update(values)


def _schedule_state(runner: Runner) -> dict[str, Any]:
    """The position in all schedules, and the values that they have set."""
    schedulers, states = runner.param_schedulers, None  # type: Any, Any
    if isinstance(schedulers, dict):
        states = {name: [one.state_dict() for one in several] for name, several in schedulers.items()}
    elif schedulers is not None:
        states = [one.state_dict() for one in schedulers]
    groups = runner.optim_wrapper.param_groups
    groups = [] if isinstance(groups, dict) else groups
    values = [{key: value for key, value in group.items() if key != 'params'} for group in groups]
    return copy.deepcopy(dict(iter=runner.iter, param_schedulers=states, param_groups=values))
