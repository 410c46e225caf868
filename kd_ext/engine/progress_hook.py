"""A progress bar for a training."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_ext.data.progress import ProgressBar
from kd_ext.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows iterations, loss and remaining time of a training on stderr, after ``title``.

    On a terminal it shows a bar, otherwise it prints a line every ``interval`` seconds.
    """

    priority = 'VERY_LOW'

    def __init__(self, title: str = 'training', interval: float = 15.0) -> None:
        self.title, self.interval = title, interval

    def before_train(self, runner: Runner) -> None:
        """Starts the bar at the iteration where training starts or resumes."""
        self._bar = ProgressBar(self.title, runner.max_iters, runner.iter, interval=self.interval)
        self._bar.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Moves the bar, or prints a line when one is due."""
        self._bar.show(runner.iter + 1, f'loss {float((outputs or {})["loss"]):.3f}')

    def after_train(self, runner: Runner) -> None:
        """Closes the bar."""
        self._bar.stop()
