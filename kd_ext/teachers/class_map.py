"""Classes of the student found in the teacher's list, by name.

Shapes: K_S and K_T classes of student and teacher; the background is label K_S or K_T, in the last column of
softmax logits and the last row of class means that hold it.
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
    """``'Dining_Table'`` and ``'diningtable'`` are one name."""
    return re.sub(r'[\s_-]', '', str(name)).lower()


def plain_names(names: Sequence[str]) -> list[str]:
    """Names as they are compared."""
    return [_plain(name) for name in names]


class ClassMap:
    """Which class of the teacher each class of the student is.

    Names are compared without case, spaces, ``_`` and ``-``, except where a list tells names apart by them
    (``'A'`` and ``'a'``). Where one list is not known both are taken to be the same.

    Args:
        student (Sequence[str], optional): Names of the student's classes.
        teacher (Sequence[str], optional): Names of the teacher's.
        aliases (dict[str, str], optional): The teacher's name for a class of the student where they differ:
            ``dict(sofa='couch')``.

    Attributes:
        same (bool): Whether there is nothing to map.
        index (Tensor | None): Teacher's class of each of the student's (K_S,), ``-1`` where it knows none.

    Raises:
        ValueError: A name occurs twice in a list, or an alias is no name of either.
    """

    def __init__(
        self,
        student: Sequence[str] | None = None,
        teacher: Sequence[str] | None = None,
        aliases: dict[str, str] | None = None,
    ) -> None:
        # None where a list is not known; then nothing is mapped
        self.student: Any = None if student is None else list(student)
        self.teacher: Any = None if teacher is None else list(teacher)
        places = _places('the teacher', self.teacher)
        own = _places('the student', self.student)
        self.aliases = {}
        for name, other in (aliases or {}).items():
            for side, word, known in (('student', name, own), ('teacher', other, places)):
                if not {word, _plain(word)} & set(known):
                    raise value_error(
                        'classes.aliases',
                        "names of the student's classes with the teacher's names for them",
                        f'{word!r}, which is no class of the {side}',
                        near_matches(word, getattr(self, side) or ()),
                    )
            self.aliases[_plain(name)] = _plain(other)
        self.index: Any = None
        if self.student is not None and self.teacher is not None:
            self.index = self.find(self.student, places)
        self.same = self.index is None or (
            len(self.student) == len(self.teacher) and self.index.tolist() == list(range(len(self.student)))
        )

    def find(self, names: Sequence[str], places: dict[str, int]) -> Tensor:
        """Place of each of these names in another list, or ``UNKNOWN``."""
        found = []
        for name in names:
            plain = _plain(name)
            # the exact name first: it is a key where plain names do not tell a list's classes apart
            own = places.get(name, places.get(plain, UNKNOWN))
            alias = self.aliases.get(plain)
            found.append(own if alias is None else places.get(alias, own))
        return torch.tensor(found, dtype=torch.long)

    @property
    def common(self) -> list[int]:
        """Student's classes that the teacher knows: list[int]."""
        return (self.index >= 0).nonzero()[:, 0].tolist()

    @property
    def disjoint(self) -> bool:
        """Whether the lists have no class in common."""
        return not self.same and not self.common

    def describe(self) -> str:
        """``classes: 18 of 20 known to the teacher (80), not a, b``."""
        unknown = [name for name, place in zip(self.student, self.index) if place < 0]
        text = (
            f"classes: {len(self.common)} of the student's "
            f"{len(self.student)} are among the teacher's "
            f'{len(self.teacher)}'
        )
        return text + (f', not {", ".join(unknown[:8])}' + (', ...' if unknown[8:] else '') if unknown else '')

    def check(self, num_classes: int, teacher_classes: int) -> None:
        """That the lists are as long as the heads say.

        Raises:
            ValueError: They are not, or the heads differ and no names say how.
        """
        for role, names, count in (('student', self.student, num_classes), ('teacher', self.teacher, teacher_classes)):
            # names that nothing is mapped by may be of any number
            if self.index is not None and len(names) != count:
                raise value_error(
                    f'the class names of the {role}',
                    f'{count}, as its head has classes',
                    f'{len(names)}: {", ".join(names[:4])}, ...',
                    f'Correct classes=dict({role}=[...]).',
                )
        if self.index is None and num_classes != teacher_classes:
            missing = [f'{role}=[...]' for role in ('student', 'teacher') if getattr(self, role) is None]
            raise value_error(
                'teacher and student',
                'of the same classes where terms are by class',
                f'{num_classes} classes in the student and {teacher_classes} in the teacher',
                'Give the model the '
                f'names to map them by: classes=dict({", ".join(missing)}), '
                "or take terms at 'embedding', 'neck' or 'backbone'.",
            )

    def columns(self, background: bool) -> tuple[list[int], list[int]]:
        """Columns of the logits of both that mean the same.

        Args:
            background (bool): Whether the last one is the background.

        Returns:
            tuple[list[int], list[int]]: Of the student, of the teacher.
        """
        own = self.common
        other = self.index[own].tolist()
        if background:
            own, other = [*own, len(self.student)], [*other, len(self.teacher)]
        return own, other

    def rows(self, means: Tensor, names: Sequence[str]) -> Tensor:
        """Class means (R, D) of classes ``names`` for the student's.

        A class that is not among them gets a row of zeros, which all losses leave out; the background's row stays
        the last.
        """
        index = self.find(self.student, _places('the class means', names))
        found = means[index.clamp(min=0)] * (index >= 0)[:, None]
        return torch.cat([found, means[len(names) :]])

    def labels_to_teacher(self, labels: Tensor) -> Tensor:
        """The teacher's labels (N,), ``-1`` where it knows no such class."""
        return self.index.to(labels.device)[labels]

    def labels_to_student(self, labels: Tensor) -> Tensor:
        """The student's labels of the teacher's (N,), background included."""
        back = torch.full((len(self.teacher) + 1,), UNKNOWN)
        back[self.index[self.common]] = torch.tensor(self.common)
        back[-1] = len(self.student)
        return back.to(labels.device)[labels]

    def to_teacher(self, data_samples: list) -> list:
        """Copies of the samples with the teacher's labels.

        Objects of classes that it does not know are left out.
        """
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
    """Place of each plain name in a list; of names that are the same when plain, that of the exact name."""
    names = list(names or ())
    if len(set(names)) < len(names):
        raise value_error(
            f'the class names of {whose}',
            'without one twice',
            ', '.join(sorted({name for name in names if names.count(name) > 1})),
        )
    plain = plain_names(names)
    return {(name if plain.count(key) > 1 else key): index for index, (name, key) in enumerate(zip(names, plain))}
