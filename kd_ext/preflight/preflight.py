"""Runs the preflight checks in order and prints their tables."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Callable, Iterable, Iterator, Sequence

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from rich.console import Console
from rich.table import Table
from torch import nn

from kd_ext.build.configs import type_name
from kd_ext.data.labelled import LabelledData, class_names, spread
from kd_ext.data.regions import undisturbed
from kd_ext.data.unwrap import unwrap
from kd_ext.errors import is_ours, value_error
from kd_ext.preflight.classes import check_num_classes, compare_classes, data_map
from kd_ext.preflight.finding import Finding, fatal, warning
from kd_ext.preflight.step_check import StepCheck
from kd_ext.preflight.teacher_score import TeacherScore
from kd_ext.preflight.timing import Stopwatch
from kd_ext.teachers.build import ONE

IMAGES = 6


class Preflight:
    """Checks a distillation, ``model``, before it is trained with its config ``cfg``.

    Args:
        images: Number of images to use: annotated ones of the validation set, else of the training set.
        size: Longer side of the images; smaller is faster. None, or a detector that takes no small ones, leaves them.
        watch: Stopwatch that has timed the earlier parts.

    Raises:
        ValueError: No image has annotations, or a head has fewer classes than the data.
    """

    def __init__(
        self,
        cfg: Config,
        model: Any,
        images: int = IMAGES,
        size: int | None = 320,
        watch: Stopwatch | None = None,
        console: Console | None = None,
    ) -> None:
        self.cfg, self.model = cfg, model
        self.watch = watch or Stopwatch()
        self.console = console or Console()
        self.names = class_names(cfg)
        check_num_classes(model.student, self.names)
        self.images, self.size = images, size
        self._load()

    def _load(self) -> None:
        with self.watch.part('reading the images'):
            samples = self._read()
        self.batches = [pseudo_collate([sample]) for sample in samples]
        self.joined = pseudo_collate((samples * 2)[:2])

    def _at_a_size(self, look: Callable[[], Any]) -> Any:
        """Calls ``look``, and once more with images of full size for a detector that takes no small ones."""
        try:
            return look()
        except RuntimeError:
            if self.size is None:
                raise
        self.size = None
        self._load()
        return look()

    def _read(self) -> list[dict]:
        images = self.images
        cfg = self.cfg if self.size is None else _resized(self.cfg, self.size)
        for split in ('val', 'train'):
            if not cfg.get(f'{split}_dataloader'):
                continue
            try:
                data = LabelledData(cfg, split)
            except ValueError as error:
                if split == 'train' or not is_ours(error):
                    raise
                continue
            first = spread(len(data), 4 * images)
            samples: list[dict] = []
            for index in (*first, *sorted(set(range(len(data))) - set(first))):
                sample = data[index] if data.annotated(index) else None
                if sample is not None and len(sample['data_samples'].gt_instances):
                    samples.append(sample)
                if len(samples) == images:
                    break
            if samples:
                return samples
        rule = 'a data set with annotated images'
        remedy = 'Correct ann_file, metainfo.classes and the filters of the pipeline.'
        raise value_error('train_dataloader.dataset', rule, 'none that its pipeline keeps', remedy)

    def classes(self) -> Iterator[Finding]:
        """Findings on the class lists."""
        distiller = self.model.distiller
        for name, mapped in distiller.classes.items():
            by_class = [term for term in distiller.by_class if distiller.teacher_of[term] == name]
            yield from compare_classes(self.names, mapped, by_class)
        lonely = [name for name, term in distiller.terms.items() if type(term.loss).__name__ == 'NCKDLoss']
        if lonely and len(self.names) == 1:
            yield fatal(
                f'{" and ".join(lonely)} relates classes to one another, and the data has one class '
                f'({self.names[0]}): all its terms stay 0. NCKD needs two classes; take another method.'
            )

    def sizes(self) -> Iterator[Finding]:
        """Findings on teachers that are smaller than the student."""
        count = _parameters(self.model.student)
        for name, teacher in self.model.teachers.items():
            own = _parameters(teacher)
            if own < count:
                text = f'The {_named(name)} has {own:,} parameters and the student {count:,}: are they swapped?'
                yield warning(text)

    def teachers(self, thorough: bool = True) -> dict[str, TeacherScore]:
        """A :class:`TeacherScore` per teacher, by name."""
        scores = {}
        for name, teacher in self.model.teachers.items():
            classes = data_map(self.names, self.model.distiller.classes[name])
            with undisturbed(teacher):
                scores[name] = self._at_a_size(
                    lambda: TeacherScore(self.model, name, self.batches, classes, thorough)  # noqa: B023
                )
        return scores

    def step(self) -> StepCheck:
        """A :class:`StepCheck` on two of the images."""
        with undisturbed(self.model):
            self.model.train()
            return self._at_a_size(lambda: StepCheck(self.model, self.joined))

    def short(self) -> list[Finding]:
        """Runs the checks that take seconds."""
        return [*self.classes(), *self.sizes(), *_findings(self.teachers(thorough=False).values())]

    def run(self) -> list[Finding]:
        """Runs all checks and prints their tables."""
        findings = [*self.classes(), *self.sizes()]
        matches = self.model.distiller.matches
        self.console.print('matches', matches.table(), *matches.remarks(), '', sep='\n', markup=False, highlight=False)
        with self.watch.part("the teacher's own loss"):
            scores = self.teachers()
        for name, score in scores.items():
            self._show(
                f"the {_named(name)}'s own loss on {len(score.batches)} images",
                ('inputs', 'loss'),
                ((kind, f'{loss:.3f}') for kind, loss in score.rows()),
            )
        with self.watch.part('the terms of a step'):
            step = self.step()
        self._show(
            'one step',
            ('', 'value', 'share', 'gradient norm'),
            ((name, f'{value:.4f}', f'{share:.1%}', f'{norm:.3g}') for name, value, share, norm in step.rows()),
        )
        with self.watch.part('the cost of a step'):
            costs = step.costs()
        rows = [(name, f'{time:.2f}', '' if mib is None else f'{mib:.0f}') for name, (time, mib) in costs.items()]
        self._show('a step of two small images', ('', f'seconds{_threads()}', 'MiB'), rows)
        self._show('this check', ('', 'seconds'), ((part, f'{seconds:.1f}') for part, seconds in self.watch.rows()))
        return [*findings, *_findings(scores.values()), *step.findings()]

    def _show(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(title=title)
        for index, column in enumerate(columns):
            table.add_column(column, justify='right' if index else 'left', overflow='fold')
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def _findings(checks: Iterable[Any]) -> list[Finding]:
    return [finding for check in checks for finding in check.findings()]


def _named(teacher: str) -> str:
    """``teacher``, or ``teacher big`` if there are several."""
    return 'teacher' if teacher == ONE else f'teacher {teacher}'


def _threads() -> str:
    """``, 2 threads`` on a CPU, else empty."""
    count = torch.get_num_threads()
    return '' if torch.cuda.is_available() else (f', {count} thread{"s" * (count > 1)}')


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _resized(cfg: Config, size: int) -> Config:
    """A copy of the config whose validation and test pipelines resize to at most ``size``."""
    cfg = deepcopy(cfg)
    pipelines = [cfg.get('test_pipeline') or ()]
    for split in ('val', 'test'):
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        pipelines += [part.pipeline for part in unwrap(dataset)]
    for step in (step for pipeline in pipelines for step in _steps(pipeline)):
        if type_name(step).endswith('Resize') and 'scale' in step:
            scale = step['scale']
            larger = max(scale) if isinstance(scale, (list, tuple)) else scale
            if larger > size:
                step['scale'] = (size, size)
    return cfg


def _steps(pipeline: Any) -> Iterator[dict]:
    """The transforms of a pipeline, including those nested in others such as TestTimeAug."""
    for step in pipeline if isinstance(pipeline, (list, tuple)) else ():
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get('transforms'))
        else:
            yield from _steps(step)
