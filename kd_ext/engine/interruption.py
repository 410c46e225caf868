"""Ctrl-C and SIGTERM during training save a checkpoint before the run ends.

The signal only sets a flag. The loop stops at the next point where weights, optimizer and schedules are
consistent: between two iterations, between two epochs, or during validation. ``--resume`` goes on from
``interrupted.pth``, also in mmdet's own tools:

* iteration-based training continues with the next iteration;
* epoch-based training repeats the interrupted epoch, with the weights reached and the schedules of its start,
  because MMEngine's loop cannot start inside an epoch.

A second signal, at least 3 seconds after the first, ends the process at once.
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
# Ctrl-C in a terminal reaches a process twice: directly, and through its launcher
ECHO_SECONDS = 3


class Interrupted(BaseException):
    """Ends a run; the text says what was saved and how to resume."""

    def __init__(self, signum: int, text: str) -> None:
        super().__init__(text)
        self.signum = signum


class Interruption:
    """Handles SIGINT and SIGTERM by setting a flag.

    Args:
        saved: What the run saves before it ends, for the message.
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
            # not an exception, which MMEngine might swallow
            if dist.is_main_process():
                print('\nInterrupted; nothing was saved.', flush=True)
            os._exit(128 + signum)
        self.signum, self._first_time = signum, now
        # the signal may end the data workers too; torch's SIGCHLD handler would then raise inside a step
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if dist.is_main_process():
            text = f'{self.saved} is saved when this step ends. Interrupt again to end without it.'
            print(f'\nInterrupted: {text}', flush=True)

    def _in_child(self, signum: int) -> None:
        # a forked data worker ignores Ctrl-C; multiprocessing ends it by SIGTERM
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def agreed(self) -> bool:
        """Whether any rank got a signal; the answer is the same on all ranks."""
        if dist.get_world_size() > 1:
            flag = torch.tensor(self.signum)
            dist.all_reduce(flag, 'max')
            self.signum = int(flag)
        return bool(self.signum)


def train(runner: Runner, interruption: Interruption) -> None:
    """Runs ``runner.train()``, interruptibly; a training that distills gets a :class:`PublishStudentHook`."""
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
        # raised while the next batch is fetched, that is between steps
        if 'exited unexpectedly' in text and interruption.signum and dist.get_world_size() == 1:
            hook.stop(runner, runner.iter)
        remedy = (
            'Usually memory ran out: lower train_dataloader.num_workers or batch_size, or enlarge /dev/shm. --resume '
            'goes on from the last checkpoint.'
        )
        text = expected('the processes that read the data', 'alive', text.strip(' .'), remedy)
        raise RuntimeError(text) from error


class InterruptHook(Hook):
    """Saves a checkpoint and stops the run when the flag is set. It runs after all other hooks."""

    priority = 'LOWEST'

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        self.epoch_start: dict[str, Any] | None = None  # schedules at the start of the current epoch
        self.in_validation = False
        self._schedules: dict[str, Any] | None = None  # to write into the next checkpoint

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
        # ranks cannot agree here, as one may have a batch less; they agree at the next training step
        if self.interruption.signum and dist.get_world_size() == 1:
            self.stop(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.in_validation = False

    def stop(self, runner: Runner, iters_done: int) -> None:
        """Saves a checkpoint and raises ``Interrupted``."""
        if self.in_validation:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # swaps the trained weights back in
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
    """The state of all schedulers, and the optimizer settings that they have set."""
    schedulers, states = runner.param_schedulers, None  # type: Any, Any
    if isinstance(schedulers, dict):
        states = {name: [one.state_dict() for one in several] for name, several in schedulers.items()}
    elif schedulers is not None:
        states = [one.state_dict() for one in schedulers]
    groups = runner.optim_wrapper.param_groups
    groups = [] if isinstance(groups, dict) else groups
    values = [{key: value for key, value in group.items() if key != 'params'} for group in groups]
    return copy.deepcopy(dict(iter=runner.iter, param_schedulers=states, param_groups=values))
