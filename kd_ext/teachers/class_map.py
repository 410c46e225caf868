"""Maps the student's classes to the teacher's by name.

Shapes: K_S and K_T are the numbers of classes of student and teacher. The background has label K_S or K_T: the
last column of softmax logits and, where class means include it, their last row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_ext.errors import near_matches, value_error

UNKNOWN = -1


def _plain(name: str) -> str:
    """Folds case, spaces, ``_`` and ``-``: ``'Dining_Table'`` and ``'diningtable'`` are one name."""
    return re.sub(r'[\s_-]', '', str(name)).lower()


def plain_names(names: Sequence[str]) -> list[str]:
    """Folds names to the form in which they are compared."""
    return [_plain(name) for name in names]


class ClassMap:
    """Maps each class of the student to the teacher's class of the same name.

    Names are compared without case, spaces, ``_`` and ``-``, unless two names of one list differ only in these
    (``'A'`` and ``'a'``). If one list is unknown (None), both are assumed to be the same.

    Args:
        student: Names of the student's classes.
        teacher: Names of the teacher's classes.
        aliases: The teacher's name for each student class that it names differently: ``dict(sofa='couch')``.

    Attributes:
        same: Whether both have the same labels, so that nothing is mapped.
        index: Teacher class of each student class (K_S,), ``-1`` if the teacher lacks it; None if a list is
            unknown.

    Raises:
        ValueError: A list has a name twice, or an alias is in neither list.
    """

    def __init__(
        self,
        student: Sequence[str] | None = None,
        teacher: Sequence[str] | None = None,
        aliases: dict[str, str] | None = None,
    ) -> None:
        self.student: Any = None if student is None else list(student)
        self.teacher: Any = None if teacher is None else list(teacher)
        places = _places('the teacher', self.teacher)
        own = _places('the student', self.student)
        self.aliases = {}
        for name, other in (aliases or {}).items():
            for side, word, known in (('student', name, own), ('teacher', other, places)):
                if not {word, _plain(word)} & set(known):
                    rule = "names of the student's classes with the teacher's names for them"
                    found = f'{word!r}, which is no class of the {side}'
                    raise value_error('classes.aliases', rule, found, near_matches(word, getattr(self, side) or ()))
            self.aliases[_plain(name)] = _plain(other)
        self.index: Any = None
        if self.student is not None and self.teacher is not None:
            self.index = self.find(self.student, places)
        self.same = self.index is None or (
            len(self.student) == len(self.teacher) and self.index.tolist() == list(range(len(self.student)))
        )

    def find(self, names: Sequence[str], places: dict[str, int]) -> Tensor:
        """Index of each of ``names`` in another list, ``UNKNOWN`` if it is not there."""
        found = []
        for name in names:
            plain = _plain(name)
            # the key is the exact name where two names of that list fold to the same
            own = places.get(name, places.get(plain, UNKNOWN))
            alias = self.aliases.get(plain)
            found.append(own if alias is None else places.get(alias, own))
        return torch.tensor(found, dtype=torch.long)

    @property
    def common(self) -> list[int]:
        """Student classes that the teacher has too."""
        return (self.index >= 0).nonzero()[:, 0].tolist()

    @property
    def disjoint(self) -> bool:
        """Whether the lists share no class."""
        return not self.same and not self.common

    def describe(self) -> str:
        """For messages: ``classes: 18 of the student's 20 are among the teacher's 80, not a, b``."""
        unknown = [name for name, place in zip(self.student, self.index) if place < 0]
        text = (
            f"classes: {len(self.common)} of the student's "
            f"{len(self.student)} are among the teacher's "
            f'{len(self.teacher)}'
        )
        return text + (f', not {", ".join(unknown[:8])}' + (', ...' if unknown[8:] else '') if unknown else '')

    def check(self, num_classes: int, teacher_classes: int) -> None:
        """Checks the lists against the models' numbers of classes.

        Raises a ``ValueError`` if a list has another length, or if a list is unknown and the numbers differ.
        """
        for role, names, count in (('student', self.student, num_classes), ('teacher', self.teacher, teacher_classes)):
            # while one list is unknown, nothing is mapped and the other may have any length
            if self.index is not None and len(names) != count:
                rule = f'{count}, the number of classes of its head'
                found, remedy = f'{len(names)}: {", ".join(names[:4])}, ...', f'Correct classes=dict({role}=[...]).'
                raise value_error(f'the class names of the {role}', rule, found, remedy)
        if self.index is None and num_classes != teacher_classes:
            missing = [f'{role}=[...]' for role in ('student', 'teacher') if getattr(self, role) is None]
            raise value_error(
                'teacher and student',
                'of the same number of classes for terms that compare classes',
                f'{num_classes} classes in the student and {teacher_classes} in the teacher',
                'Give the model the '
                f'names to map them by: classes=dict({", ".join(missing)}), '
                "or take terms at 'embedding', 'neck' or 'backbone'.",
            )

    def columns(self, background: bool) -> tuple[list[int], list[int]]:
        """Logit columns of both models that score the same classes, and with ``background`` the last ones."""
        own = self.common
        other = self.index[own].tolist()
        if background:
            own, other = [*own, len(self.student)], [*other, len(self.teacher)]
        return own, other

    def rows(self, means: Tensor, names: Sequence[str]) -> Tensor:
        """Reorders the means (R, D) of classes ``names`` to the student's classes.

        A student class that ``names`` lacks gets a row of zeros, which all losses ignore. The background stays
        last.
        """
        index = self.find(self.student, _places('the class means', names))
        found = means[index.clamp(min=0)] * (index >= 0)[:, None]
        return torch.cat([found, means[len(names) :]])

    def labels_to_teacher(self, labels: Tensor) -> Tensor:
        """Translates student labels (N,); ``-1`` where the teacher lacks the class."""
        return self.index.to(labels.device, non_blocking=True)[labels]

    def labels_to_student(self, labels: Tensor) -> Tensor:
        """Translates teacher labels (N,), background included; ``-1`` where the student lacks the class."""
        back = torch.full((len(self.teacher) + 1,), UNKNOWN)
        back[self.index[self.common]] = torch.tensor(self.common)
        back[-1] = len(self.student)
        return back.to(labels.device, non_blocking=True)[labels]

    def to_teacher(self, data_samples: list) -> list:
        """Copies samples with the teacher's labels, without the objects whose class the teacher lacks."""
        if self.same:
            return data_samples
        return [self._sample(sample) for sample in data_samples]

    def _sample(self, sample: Any) -> Any:
        labels = self.labels_to_teacher(sample.gt_instances.labels)
        known = labels >= 0
        mapped = sample.new()
        mapped.gt_instances = sample.gt_instances[known]
        mapped.gt_instances.labels = labels[known]
        return mapped


def _places(whose: str, names: Sequence[str] | None) -> dict[str, int]:
    """Index of each folded name in a list; names that fold to the same keep their exact form."""
    names = list(names or ())
    if len(set(names)) < len(names):
        found = ', '.join(sorted({name for name in names if names.count(name) > 1}))
        raise value_error(f'the class names of {whose}', 'without one twice', found)
    plain = plain_names(names)
    return {(name if plain.count(key) > 1 else key): index for index, (name, key) in enumerate(zip(names, plain))}
