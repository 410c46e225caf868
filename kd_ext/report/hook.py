"""Logs a report's figures during a training and writes the report at its end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from kd_ext.data.regions import alone as single_process
from kd_ext.errors import value_error
from kd_ext.registry import HOOKS
from kd_ext.report.detections import TestImages
from kd_ext.report.errors_by_kind import error_costs
from kd_ext.report.features import cka, read_layers
from kd_ext.report.gather import INNER_IMAGES, Asked
from kd_ext.report.precision import precision
from kd_ext.report.write import write_report

PREFIX = 'val/report/'


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``WORK_DIR/report.html`` after the training, and logs its figures after each validation.

    After a validation the logger gets ``report/AP_<class>``, ``report/error_<kind>`` (what TIDE's kinds of errors
    cost, in points of AP50) and, in a distillation, ``report/cka_<entry>_<layer>``: CKA of each layer that learns with
    the teacher's. They reach every visualisation backend of the config (TensorBoard, W&B, ...). A report that fails is
    logged as a warning; the training has ended well by then.

    Args:
        alone: Work dirs of the student alone, to compare with.
        out: The page, in the work dir.
        max_images: No more images of the test split than this for the page.
        figures: Whether to log after each validation.
    """

    # before the logger, and while an EMA hook has swapped the averaged weights in
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        alone: Sequence[str] | str = (),
        out: str = 'report.html',
        max_images: int | None = None,
        figures: bool = True,
    ) -> None:
        if max_images is not None and (not isinstance(max_images, int) or max_images < 1):
            raise value_error('ReportHook.max_images', 'a whole number >= 1', repr(max_images))
        self.alone = [alone] if isinstance(alone, str) else list(alone)
        self.out, self.max_images, self.figures = out, max_images, figures
        self._images: Any = None
        self._found: dict[Any, list[dict]] = {}
        self._rows: list[dict[str, dict[str, Tensor]]] = []

    def before_train(self, runner: Any) -> None:
        """Reads the ground truth of the validation."""
        if self.figures and runner.val_loop is not None:
            try:
                self._images = TestImages(runner.cfg, 'val')
                self._ids = dict(zip(self._images.paths, self._images.ids))
            except (ValueError, KeyError, OSError) as error:
                runner.logger.warning(f'ReportHook: no figures after validations. {error}')

    def before_val_epoch(self, runner: Any) -> None:
        """Forgets the last validation."""
        self._found, self._rows = {}, []

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Keeps the detections and, of the first images, the features."""
        if self._images is None:
            return
        for output in outputs or ():
            number = self._ids.get(os.path.abspath(output.get('img_path') or ''))
            if number is not None:
                self._found[number] = self._images.results(number, output.pred_instances.cpu())
        model = _plain(runner.model)
        if not hasattr(model, 'distiller') or len(self._rows) * len(outputs or ()) >= INNER_IMAGES:
            return
        batch = model.data_preprocessor(data_batch, False)
        inputs, samples = batch['inputs'], batch['data_samples']
        name, teacher = next(iter(model.teachers.items()))
        with torch.no_grad():
            rows = read_layers(model.student, inputs, samples)
            rows_t = read_layers(teacher, model.adapters[name](inputs, samples), samples)
        self._rows.append(dict(student=rows, teacher=rows_t))

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Passes the figures to the logger."""
        if self._images is None:
            return
        for key in [key for key in runner.message_hub.log_scalars if key.startswith(PREFIX)]:
            runner.message_hub.log_scalars.pop(key)  # or the logger repeats the last values
        every: list[dict] = all_gather_object(self._found)
        found = {number: results for part in every for number, results in part.items()}
        if not found:
            return
        # a loop may validate on a part of the images
        kept = {
            key: [item for item in self._images.truth[key] if item['id' if key == 'images' else 'image_id'] in found]
            for key in ('images', 'annotations')
        }
        truth, results = dict(self._images.truth, **kept), [item for part in found.values() for item in part]
        figures = {f'AP_{name}': value for name, value in precision(truth, results)['classes'].items()}
        figures.update({f'error_{kind}': one['cost'] for kind, one in error_costs(truth, results).items()})
        figures.update(self._likeness(_plain(runner.model)))
        for key, value in figures.items():
            if value is not None:
                runner.message_hub.update_scalar(PREFIX + key, value)

    def _likeness(self, model: Any) -> dict[str, float]:
        """CKA of each match that :func:`read_layers` reads, with the first teacher."""
        found = {}
        for row in model.distiller.matches.rows if self._rows else ():
            if row.of not in ('', next(iter(model.teachers))):
                continue
            try:
                sides = [
                    torch.cat([one[role][side.where] for one in self._rows]).cpu()
                    for role, side in (('student', row.student), ('teacher', row.teacher))
                ]
            except KeyError:  # a layer that is read nowhere else
                continue
            found[f'cka_{row.entry}_{row.student.where}'] = cka(*sides)
        return found

    def after_train(self, runner: Any) -> None:
        """Writes the report, on the first process."""
        if not is_main_process():
            return
        out = Path(runner.work_dir) / self.out
        asked = Asked([runner.work_dir], self.alone, max_images=self.max_images)
        try:
            with single_process():
                content = write_report(asked, out)
        except Exception as error:  # hours of training must not end in an error of its report
            runner.logger.warning(f'ReportHook: no report. {type(error).__name__}: {error}')
            return
        runner.logger.info(f'Report: {out}\n' + '\n'.join(one['text'] for one in content['verdict']))


def _plain(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model
