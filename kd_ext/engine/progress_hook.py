"""A progress bar for a training, on a terminal and in a plain log."""

import sys
import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kd_ext.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows iterations, loss and remaining time of a training, on stderr.

    On a terminal as a bar; elsewhere as a line every ``interval`` seconds.

    Args:
        title (str): Put before the bar.
        interval (float): Seconds between lines where there is no terminal.
    """

    priority = 'VERY_LOW'

    def __init__(self, title: str = 'training', interval: float = 15.0):
        self.title = title
        self.interval = interval
        self._bar = None

    def before_train(self, runner):
        """Starts the bar where training starts or resumes."""
        if not is_main_process():
            return
        self._total, self._first = runner.max_iters, runner.iter
        self._start = self._shown = time.monotonic()
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn('{task.description:<28}'),
                BarColumn(None),
                MofNCompleteColumn(),
                TextColumn('loss {task.fields[loss]}'),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self._total, completed=runner.iter, loss='-')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Moves the bar, or prints a line when it is time for one."""
        if not is_main_process():
            return
        done, loss = runner.iter + 1, float(outputs['loss'])
        if self._bar is not None:
            self._bar.update(self._task, completed=done, loss=f'{loss:.3f}')
            return
        now = time.monotonic()
        if now - self._shown >= self.interval or done == self._total:
            self._shown = now
            pace = (now - self._start) / (done - self._first)
            left = pace * (self._total - done)
            print(
                f'{self.title}: {done}/{self._total} iterations, loss {loss:.3f}, {left:.0f} s left',
                file=sys.stderr,
                flush=True,
            )

    def after_train(self, runner):
        """Closes the bar."""
        if self._bar is not None:
            self._bar.stop()
