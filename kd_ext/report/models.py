"""The models of a report: the teacher, and the student of each run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device

from kd_ext.build.configs import read_config
from kd_ext.build.detector import build_detector, own_model, student_config
from kd_ext.errors import value_error
from kd_ext.report.work_dir import Run
from kd_ext.teachers.build import are_several, build_teacher
from kd_ext.teachers.class_map import ClassMap


def load_student(run: Run, checkpoint: Path) -> Any:
    """The student of a run with the weights of a checkpoint, frozen."""
    return build_teacher(own_model(student_config(run.cfg)), str(checkpoint), role='student').to(get_device())


def untrained_student(run: Run) -> Any:
    """The student of a run before its first step: its initial weights, drawn anew with the seed of the run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed or 0)
        model = build_detector(own_model(student_config(run.cfg)), 'student')
        # MMEngine logs a line for each weight
        logging.disable(logging.INFO)
        try:
            model.init_weights()
        finally:
            logging.disable(logging.NOTSET)
    return model.eval().to(get_device())


def load_teacher(runs: list[Run], given: tuple[str, ...] | None) -> tuple[Any, str, str, list[str]]:
    """The teacher: that of ``--teacher``, a work dir or a config with a checkpoint, else that of the first run.

    Returns:
        The frozen model, the name of its config, its checkpoint, and sentences.

    Raises:
        ValueError: No run names a teacher, or the checkpoint does not fit.
        FileNotFoundError: Its config or checkpoint does not exist.
    """
    notes = []
    if given is not None:
        config, checkpoint = given
        source: Any = own_model(student_config(read_config(config, '--teacher')))
        name = config
    else:
        run = next((run for run in runs if run.distills), None)
        if run is None:
            raise value_error(
                'RUN', 'one that distilled, to show its teacher', 'plain trainings alone', 'Name it with --teacher.'
            )
        source, checkpoint = run.cfg.model.get('teacher'), run.cfg.model.get('teacher_ckpt')
        name = 'teacher'
        if are_several(source):
            name = next(iter(source))
            notes.append(f'There are several teachers ({", ".join(source)}); {name} is shown.')
            source, checkpoint = source[name], checkpoint[name]
        if isinstance(source, str):
            name = source = _found(source, run)
        checkpoint = _found(checkpoint, run)
    model = build_teacher(source, checkpoint, role='teacher').to(get_device())
    return model, name if '::' in name else os.path.basename(name), checkpoint, notes


def _found(path: Any, run: Run) -> Any:
    """A relative path may start in the working directory or in the work dir."""
    if isinstance(path, str) and not os.path.exists(path) and (run.folder / path).is_file():
        return str(run.folder / path)
    return path


def label_map(model: Any, classes: list[str], names: dict | None) -> list[int] | None:
    """Our label of each class of a teacher, -1 where we have no such class; None if both are the same.

    Raises:
        ValueError: They have no class in common.
    """
    names = names or {}
    theirs = names.get('teacher')
    theirs = theirs if isinstance(theirs, (list, tuple)) else getattr(model, 'class_names', None)
    mapped = ClassMap(classes, theirs, names.get('aliases'))
    if mapped.same:
        return None
    ours = [-1] * len(mapped.teacher)
    for label, other in enumerate(mapped.index.tolist()):
        if other >= 0:
            ours[other] = label
    if max(ours, default=-1) < 0:
        raise value_error(
            'the classes of the teacher',
            'some of those of the data',
            f'{", ".join(mapped.teacher[:3])}, ... for {", ".join(classes[:3])}, ...',
            'Name a teacher of such classes: --teacher.',
        )
    return ours
