"""Logs the neural collapse of a detector's embeddings during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn, tensor

from kd_ext.analysis.neural_collapse.job import CollapseJob
from kd_ext.analysis.neural_collapse.measures import Collapse
from kd_ext.data.labelled import LabelledData, spread
from kd_ext.losses.checks import check_count
from kd_ext.registry import HOOKS

PREFIX = 'val/nc/'
KEYS = ('nc1', 'nc2', 'nc3')


@HOOKS.register_module()
class NeuralCollapseHook(Hook):
    """Measures ``nc/nc1``, ``nc/nc2`` and ``nc/nc3`` after each validation, for the log and the visualizer.

    In a distillation it measures the student; with an EMA hook it measures the averaged weights, as the validation
    does. Weights, modes, buffers, random states and metrics are unchanged afterwards. Classes without regions are
    left out.

    Args:
        max_images: Validation images to use, evenly spread; None uses all.
        interval: Measure after every ``interval``-th validation.
        stage: Stage of a cascade.
        levels: Levels of a dense head.
        background: Whether the background counts as a class.
        workers: Number of data workers.
    """

    # runs while an EMA hook has swapped the averaged weights in, and before the logger
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        max_images: int | None = 200,
        interval: int = 1,
        stage: int | None = None,
        levels: Sequence[int] | None = None,
        background: bool = False,
        workers: int = 0,
    ) -> None:
        check_count('NeuralCollapseHook.max_images', 1 if max_images is None else max_images)
        check_count('NeuralCollapseHook.interval', interval)
        self.max_images, self.interval = max_images, interval
        self.options: dict[str, Any] = dict(stage=stage, levels=levels, workers=workers, background=background)
        self._job: Any = None
        self._validations = 0

    def before_run(self, runner: Any) -> None:
        """Reads the labels of the validation set, so that errors in them show before training."""
        data = LabelledData(runner.cfg, 'val')
        self._job = CollapseJob(data, spread(len(data), self.max_images), **self.options)
        self._job.head(self._student(runner)[0], 'student')

    @staticmethod
    def _student(runner: Any) -> tuple[nn.Module, Any]:
        """The detector and its data preprocessor."""
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        # mmrazor's algorithms keep their student under this name
        return (getattr(model, 'architecture', model), model.data_preprocessor)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Measures, and passes the values to the logger."""
        scalars = runner.message_hub.log_scalars
        for key in KEYS:  # or the logger repeats the last values
            scalars.pop(PREFIX + key, None)
        self._validations += 1
        if (self._validations - 1) % self.interval:
            return
        model, preprocess = self._student(runner)
        measured = self._measured(model, preprocess)
        if measured is None:
            return
        for key in KEYS:
            if getattr(measured, key) is not None:
                runner.message_hub.update_scalar(PREFIX + key, getattr(measured, key))

    def _measured(self, model: nn.Module, preprocess: Callable | None) -> Collapse | None:
        """The measures; where they fail, logs a warning and returns None."""
        head = self._job.head(model, 'student')
        moments: Any = None
        fault = ''
        try:
            moments = self._job.moments(model, head, preprocess)
        except ValueError as error:
            fault = str(error)
        # a rank that failed must tell the others, or they would wait for it in moments.all_reduce
        faults = tensor(float(bool(fault)))
        all_reduce(faults)
        if not faults:
            try:
                return self._job.measure(head, moments.all_reduce())
            except ValueError as error:
                fault = str(error)
        print_log(f'no neural collapse measured: {fault or "see other ranks"}', 'current', 30)
        return None
