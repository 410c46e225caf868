"""Gathers what a report shows into one dict of plain values, which is also its JSON."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_ext.analysis.neural_collapse.job import CollapseJob
from kd_ext.analysis.spectra.job import SpectraJob
from kd_ext.build.configs import type_name
from kd_ext.build.detector import own_model, student_config
from kd_ext.data.images import spread
from kd_ext.data.labelled import LabelledData, class_names
from kd_ext.errors import is_ours, value_error
from kd_ext.report.detections import TestImages
from kd_ext.report.differences import compare
from kd_ext.report.errors_by_kind import error_costs
from kd_ext.report.features import heat_map, rows_of
from kd_ext.report.models import label_map, load_student, load_teacher, untrained_student
from kd_ext.report.precision import precision
from kd_ext.report.told import cost, curves, identity, unlike
from kd_ext.report.work_dir import Run, read_run
from kd_ext.teachers.identity import PREFIX, checkpoint_digest, digest
from kd_ext.version import __version__

FORMAT = 1
INNER_IMAGES = 24  # for CKA and spectral norms
COLLAPSE_IMAGES = 100


@dataclass
class Asked:
    """What a report is about.

    Attributes:
        runs, alone: Work dirs; those of ``runs`` that did not distil count as ``alone``.
        teacher: Config and checkpoint; None takes that of the first run.
        data: Config whose images are used; None takes that of the first run.
        split: ``'val'`` or ``'test'``; None takes the test split, if it has objects.
        max_images: No more images than this.
    """

    runs: Sequence[str | Path]
    alone: Sequence[str | Path] = ()
    teacher: tuple[str, ...] | None = None
    data: Config | None = None
    split: str | None = None
    max_images: int | None = None


@dataclass
class Gathered:
    """What a report shows, and what it draws pictures of.

    Attributes:
        content: Figures and sentences, plain values.
        images: The :class:`TestImages`, or None if there are none.
        detections: COCO results by name of the model.
    """

    content: dict[str, Any]
    images: TestImages | None = None
    detections: dict[str, list[dict]] = field(default_factory=dict)


class Gathering:
    """One pass over runs and models; each part that fails leaves a sentence and the others go on."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.notes: list[str] = []
        self.distilled: dict[str, Run] = {}
        self.alone: dict[str, Run] = {}
        self._read()
        self.runs = {**self.distilled, **self.alone}
        self.first = next(iter(self.runs.values()))
        self.models: dict[str, Any] = {}
        self.about: dict[str, dict] = {}

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        """A part that may fail."""
        try:
            yield
        except Exception as error:  # the others are still worth showing
            text = str(error.args[0]) if is_ours(error) else f'{type(error).__name__}: {error}'
            self.notes.append(f'{what}: left out. {text}')

    def _read(self) -> None:
        found: list[tuple[Run, bool]] = []
        failed: Any = None
        for folder, alone in [*((one, False) for one in self.asked.runs), *((one, True) for one in self.asked.alone)]:
            try:
                found.append((read_run(folder), alone))
            except (OSError, ValueError) as error:
                failed = failed or error
                self.notes.append(f'{folder}: left out. {error}')
        if not found:
            raise failed
        method = next((run.method for run, alone in found if run.distills and not alone), {})
        for run, alone in found:
            role, roles = ('alone', self.alone) if alone or not run.distills else ('distilled', self.distilled)
            if alone and run.distills:
                self.notes.append(f'{run.folder}: left out. It distils, so it is no training of the student alone.')
                continue
            if run.distills and run.method != method:
                entries = [', '.join(f'{name} ({kind})' for name, kind in one.items()) for one in (run.method, method)]
                self.notes.append(f'{run.folder}: left out. It learns by {entries[0]}, the first run by {entries[1]}.')
                continue
            seed = run.seed if run.seed is not None else len(roles)
            name = f'{role}, seed {seed}'
            name = name if name not in roles else f'{name} ({run.folder.name})'
            roles[name] = run
            self.notes += [f'{name}: {note}' for note in run.notes]
        if not self.distilled and not self.alone:
            raise failed or ValueError(self.notes[0])

    def run(self) -> Gathered:
        """Gathers everything."""
        gathered = Gathered(self._told())
        with self.part('Detections'):
            gathered.images = self._images()
        if gathered.images is not None:
            self._detect(gathered)
            with self.part('Precision'):
                gathered.content.update(self._measured(gathered))
            self._inside(gathered)
        with self.part('The likeness of the runs'):
            self.notes += unlike(self.distilled, self.alone)
        gathered.content.update(models=self.about, notes=self.notes)
        return gathered

    def _told(self) -> dict[str, Any]:
        """What the work dirs tell without a model."""
        shown = next(iter((self.distilled or self.alone).values()))
        student = 'a detector'
        with self.part("The student's name"):
            student = type_name(own_model(student_config(shown.cfg)))
        return dict(
            format=FORMAT,
            kd_ext=__version__,
            made=time.strftime('%Y-%m-%d %H:%M'),
            method=shown.method,
            student=student,
            classes=[],
            matches=shown.matches(),
            curves={name: curves(run) for name, run in self.runs.items()},
            costs={name: cost(run) for name, run in self.runs.items()},
            runs={name: identity(name, run) for name, run in self.runs.items()},
        )

    def _images(self) -> TestImages:
        cfg, split = self.asked.data or self.first.cfg, self.asked.split
        if split is not None:
            return TestImages(cfg, split, self.asked.max_images)
        try:
            return TestImages(cfg, 'test', self.asked.max_images)
        except (ValueError, KeyError):  # a test split without labels, as that of COCO
            images = TestImages(cfg, 'val', self.asked.max_images)
        self.notes.append('The test split has no objects to compare with; figures are on the validation split.')
        return images

    def _detect(self, gathered: Gathered) -> None:
        images: Any = gathered.images
        gathered.content.update(
            classes=images.classes,
            data=dict(images=len(images.indices), objects=len(images.truth['annotations']), sha256=images.digest[:16]),
        )
        with self.part('The teacher'):
            model, config, checkpoint, notes = load_teacher(list(self.distilled.values()), self.asked.teacher)
            self.notes += notes
            names = self.first.cfg.model.get('classes') if self.first.distills else None
            labels = label_map(model, images.classes, names)
            if labels is not None:
                missing = [name for index, name in enumerate(images.classes) if index not in labels]
                self.notes.append(
                    f'The teacher has other classes; {", ".join(missing) or "none"} of ours it does not know.'
                )
            self._add('teacher', model, checkpoint, gathered, labels, dict(config=config), self.first.folder)
        for name, run in self.runs.items():
            if run.checkpoint is None:
                continue
            with self.part(name):
                own = class_names(run.cfg, images.images.split)
                if own != images.classes:
                    other = [name for name in own if name not in images.classes] or own
                    raise value_error(
                        'its classes',
                        f'the {len(images.classes)} of the images, {", ".join(images.classes[:3])}, ...',
                        f'{len(own)}, with {", ".join(other[:3])}',
                        'Only its curves are shown.',
                    )
                self._add(name, load_student(run, run.checkpoint), str(run.checkpoint), gathered, None, {}, run.folder)

    def _add(
        self, name: str, model: Any, checkpoint: str, gathered: Gathered, labels: Any, about: dict, keep: Path
    ) -> None:
        images: Any = gathered.images
        sha = checkpoint_digest(checkpoint, model)[:PREFIX]
        trained = sum(value.numel() for value in model.parameters())
        self.about[name] = dict(about, checkpoint=Path(checkpoint).name, sha256=sha, parameters=trained)
        key = [sha, labels, digest(getattr(model, 'test_cfg', None)), repr(images.images.configs)]
        gathered.detections[name], note = images.kept(keep, key, lambda: images.detect(model, labels, name))
        self.notes += [f'{name}: {note}'] if note else []
        self.models[name] = model

    def _measured(self, gathered: Gathered) -> dict[str, Any]:
        truth = gathered.images.truth  # type: ignore[union-attr]
        order = sorted(gathered.detections, key=lambda name: ROLES.index(name.partition(',')[0]))
        found = {name: precision(truth, gathered.detections[name]) for name in order}
        errors = {name: error_costs(truth, gathered.detections[name]) for name in order}
        seeds = [
            {run.seed if run.seed is not None else name: name for name, run in runs.items() if name in found}
            for runs in (self.distilled, self.alone)
        ]
        return dict(precision=found, errors=errors, differences=compare(found, errors, *seeds))

    def _inside(self, gathered: Gathered) -> None:
        """CKA, neural collapse and spectral norms, of the teacher and of the first run of each role."""
        images: Any = gathered.images
        named = {role: next((name for name in self.models if name.startswith(role)), '') for role in ROLES}
        models = {role: self.models[name] for role, name in named.items() if name}
        if 'distilled' not in models:
            return
        shown = self.runs[named['distilled']]
        indices = [images.indices[i] for i in spread(len(images.indices), INNER_IMAGES)]
        students = {role: model for role, model in models.items() if role != 'teacher'}
        with self.part('The layers before training'):
            students['before'] = untrained_student(shown)
        with self.part('Layers side by side (CKA)'):
            if 'teacher' in models:
                rows = rows_of({**students, 'teacher': models['teacher']}, images.images, indices)
                teacher = rows.pop('teacher')
                gathered.content['cka'] = {role: heat_map(one, teacher) for role, one in rows.items()}
        with self.part('Spectral norms'):
            roles = dict(student=models['distilled'], **{r: m for r, m in models.items() if r != 'distilled'})
            spectra = SpectraJob(images.images, indices).run(roles)
            gathered.content['spectra'] = {
                'distilled' if role == 'student' else role: dict(strides=one.strides, **one.numbers())
                for role, one in spectra.items()
            }
        with self.part('Neural collapse'):
            data = LabelledData(self.asked.data or self.first.cfg, images.images.split)
            job = CollapseJob(data, spread(len(data), COLLAPSE_IMAGES))
            measured: dict[str, dict] = gathered.content.setdefault('collapse', {})
            for role, model in models.items():
                with self.part(f'Neural collapse of the {role} model'):
                    measured[role] = job.run(model, role).numbers()


ROLES = ('teacher', 'alone', 'distilled')
