"""Compares the classes of the data, the student's heads and the teacher."""

from __future__ import annotations

from typing import Iterable, Iterator, Sequence

from torch import nn

from kd_ext.errors import value_error
from kd_ext.preflight.finding import Finding, fatal, warning
from kd_ext.teachers.class_map import ClassMap


def check_num_classes(model: nn.Module, names: Sequence[str]) -> None:
    """Raises a ``ValueError`` if a head of a plain detector has fewer classes than the training data.

    Training would end in an IndexError at the first label beyond them.
    """
    for place, module in model.named_modules():
        parts = place.split('.')
        if 'bbox_head' not in parts[-2:] or any(part.startswith('teacher') for part in parts):
            continue
        count = getattr(module, 'num_classes', None)
        if isinstance(count, int) and count < len(names):
            rule = f"at least {len(names)}, the number of the training data's classes"
            remedy = f'Set it to {len(names)}, or leave classes out with metainfo=dict(classes=...) of the data set.'
            raise value_error(f'num_classes of {place}', rule, str(count), remedy)


def compare_classes(names: Sequence[str], mapped: ClassMap, by_class: Iterable[str]) -> Iterator[Finding]:
    """Findings on what differing class lists mean for the terms, of which ``by_class`` compare class by class.

    ``names`` are the classes of the training data, ``mapped`` is the model's map to those of the teacher.
    """
    if mapped.teacher is None:
        yield warning("The teacher's checkpoint names no classes, so nobody can tell whether they are the student's.")
        return
    if mapped.student is not None and mapped.student != list(names):
        found = f'{_few(mapped.student)} and {_few(names)}'
        yield fatal(f'classes.student is not what the training data has: {found}.')
        return
    actual = data_map(names, mapped)
    if actual.same:
        return
    both = f'{_few(names)} and {_few(mapped.teacher)}'
    text = f'Teacher and student differ in their classes: {both}; {actual.describe()}'
    by_class = sorted(by_class)
    if mapped.student is not None:
        yield warning(f'{text}. They are mapped by name.')
    elif by_class:
        yield fatal(
            f'{text}. {" and ".join(by_class)} compare class by class: give the model classes=dict(student=[...]) to '
            'map them by name, as kd_ext train --distill does, or take a teacher of these classes, or terms at '
            "'neck' and 'backbone' alone."
        )
    else:
        yield warning(f'{text}. The terms in use do not compare classes.')


def data_map(names: Sequence[str], mapped: ClassMap) -> ClassMap:
    """The :class:`ClassMap` from the classes of the data to the teacher's."""
    return ClassMap(names or None, mapped.teacher, None if mapped.student is None else mapped.aliases)


def _few(names: Sequence[str]) -> str:
    return f'{", ".join(names[:4])}{", ..." if names[4:] else ""} ({len(names)})'
