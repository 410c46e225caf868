"""Class lists of teacher and student, compared by name."""

from kd_ext.preflight.finding import Finding
from kd_ext.teachers.class_map import ClassMap


def compare_classes(names, mapped, by_class):
    """What differing class lists mean for the terms in use.

    Args:
        names (list[str]): Of the training data.
        mapped (ClassMap): Of student and teacher, as the model has it.
        by_class (Iterable[str]): Terms that compare class by class.

    Returns:
        list[Finding]
    """
    if mapped.teacher is None:
        return [
            Finding(
                False, "The teacher's checkpoint names no classes, so nobody can tell whether they are the student's."
            )
        ]
    if mapped.student is not None and mapped.student != list(names):
        return [
            Finding(
                True, (f'classes.student is not what the training data has: {_few(mapped.student)} and {_few(names)}.')
            )
        ]
    actual = data_map(names, mapped)
    if actual.same:
        return []
    text = (
        f'Teacher and student differ in their classes: {_few(names)} and {_few(mapped.teacher)}; {actual.describe()}'
    )
    if mapped.student is not None:
        return [Finding(False, f'{text}. They are mapped by name.')]
    by_class = sorted(by_class)
    if by_class:
        return [
            Finding(
                True,
                (
                    f'{text}. {" and ".join(by_class)} compare class by class: give '
                    'the model classes=dict(student=[...]) to map them by name, as '
                    'tools/train.py --distill does, or take a teacher of these '
                    "classes, or terms at 'neck' and 'backbone' alone."
                ),
            )
        ]
    return [Finding(False, f'{text}. The terms in use do not mind.')]


def data_map(names, mapped):
    """The :class:`ClassMap` from the classes of the data to the teacher's."""
    return ClassMap(names or None, mapped.teacher, None if mapped.student is None else mapped.aliases)


def _few(names):
    return f'{", ".join(names[:4])}{", ..." if names[4:] else ""} ({len(names)})'
