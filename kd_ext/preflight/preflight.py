"""The checks in order, and how they are shown."""

import torch
from mmengine.dataset import pseudo_collate
from rich.console import Console
from rich.table import Table

from kd_ext.data.labelled import LabelledData, class_names, spread
from kd_ext.data.regions import undisturbed
from kd_ext.preflight.classes import compare_classes, data_map
from kd_ext.preflight.finding import Finding
from kd_ext.preflight.step_check import StepCheck
from kd_ext.preflight.stopwatch import Stopwatch
from kd_ext.preflight.teacher_score import TeacherScore
from kd_ext.teachers.build import ONE

IMAGES = 6


class Preflight:
    """Looks at a distillation before it runs.

    Args:
        cfg (Config): Of the training.
        model (DetectionDistill): Built from it.
        images (int): How many to look at, of the validation's where there are any.
        size (int): Their longer side; smaller is faster.
        watch (Stopwatch, optional): Of what went before.
    """

    def __init__(self, cfg, model, images=IMAGES, size=320, watch=None):
        self.cfg, self.model = cfg, model
        self.watch = watch or Stopwatch()
        self.console = Console()
        with self.watch.part('reading the images'):
            self._read(images, size)

    def _read(self, images, size):
        cfg = self.cfg
        split = 'val' if cfg.get('val_dataloader') else 'train'
        data = LabelledData(_resized(cfg, size), split)
        samples = []
        for index in spread(len(data), 4 * images):
            sample = data[index]
            if sample is not None and len(sample['data_samples'].gt_instances):
                samples.append(sample)
            if len(samples) == images:
                break
        self.batches = [pseudo_collate([sample]) for sample in samples]
        self.joined = pseudo_collate(samples[:2])

    def classes(self):
        """list[Finding] on the class lists."""
        distiller, names = self.model.distiller, class_names(self.cfg)
        return [
            finding
            for name, mapped in distiller.classes.items()
            for finding in compare_classes(
                names, mapped, [term for term in distiller.by_class if distiller.teacher_of[term] == name]
            )
        ]

    def sizes(self):
        """list[Finding] on a teacher smaller than its student."""
        count = _parameters(self.model.student)
        return [
            Finding(
                False,
                (
                    f'The {_named(name)} has {_parameters(teacher):,} parameters and '
                    f'the student {count:,}: are they swapped?'
                ),
            )
            for name, teacher in self.model.teachers.items()
            if _parameters(teacher) < count
        ]

    def teachers(self, thorough=True):
        """The :class:`TeacherScore` of each teacher: dict."""
        scores = {}
        for name, teacher in self.model.teachers.items():
            classes = data_map(class_names(self.cfg), self.model.distiller.classes[name])
            with undisturbed(teacher):
                scores[name] = TeacherScore(self.model, name, self.batches, classes, thorough)
        return scores

    def step(self):
        """The :class:`StepCheck` on two of them."""
        with undisturbed(self.model):
            self.model.train()
            return StepCheck(self.model, self.joined)

    def short(self):
        """The checks that take seconds: list[Finding]."""
        return [*self.classes(), *self.sizes(), *_findings(self.teachers(thorough=False).values())]

    def run(self):
        """All checks, shown on the way: list[Finding]."""
        findings = [*self.classes(), *self.sizes()]
        self.console.print(f'matches\n{self.model.distiller.matches}\n', markup=False, highlight=False, soft_wrap=True)
        with self.watch.part("the teacher's own loss"):
            scores = self.teachers()
        for name, score in scores.items():
            self.console.print(
                _table(
                    f"the {_named(name)}'s own loss on {len(score.batches)} images",
                    ('inputs', 'loss'),
                    ((kind, f'{loss:.3f}') for kind, loss in score.rows()),
                )
            )
        with self.watch.part('the terms of a step'):
            step = self.step()
        self.console.print(
            _table(
                'one step',
                ('', 'value', 'share', 'gradient norm'),
                ((name, f'{value:.4f}', f'{share:.1%}', f'{norm:.3g}') for name, value, share, norm in step.rows()),
            )
        )
        with self.watch.part('the cost of a step'):
            costs = step.costs()
        self.console.print(
            _table(
                'a step of two small images',
                ('', f'seconds{_threads()}', 'MiB'),
                (
                    (name, f'{seconds:.2f}', '' if memory is None else f'{memory:.0f}')
                    for name, (seconds, memory) in costs.items()
                ),
            )
        )
        self.console.print(
            _table('this check', ('', 'seconds'), ((part, f'{seconds:.1f}') for part, seconds in self.watch.rows()))
        )
        return [*findings, *_findings(scores.values()), *step.findings()]


def _findings(checks):
    return [finding for check in checks for finding in check.findings()]


def _named(teacher):
    """``teacher``, or ``teacher big`` where there are several."""
    return 'teacher' if teacher == ONE else f'teacher {teacher}'


def _threads():
    """``, 2 threads`` on a CPU."""
    count = torch.get_num_threads()
    return '' if torch.cuda.is_available() else (f', {count} thread{"s" * (count > 1)}')


def _parameters(model):
    return sum(p.numel() for p in model.parameters())


def _resized(cfg, size):
    """The config with every Resize of its test pipeline at ``size``."""
    cfg = cfg.copy()
    for split in ('val', 'test'):
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
        for step in dataset.get('pipeline') or ():
            if str(step.get('type')).endswith('Resize') and 'scale' in step:
                scale = step['scale']
                larger = max(scale) if isinstance(scale, (list, tuple)) else (scale)
                if larger > size:
                    step['scale'] = (size, size)
    return cfg


def _table(title, columns, rows):
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify='right' if index else 'left', overflow='fold')
    for row in rows:
        table.add_row(*row)
    return table
