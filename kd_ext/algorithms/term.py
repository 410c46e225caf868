"""A term on feature maps: level pairs, their connectors and a loss."""

import torch
from torch import nn

from kd_ext.connectors import Connector
from kd_ext.losses.precision import upcast
from kd_ext.messages import expected
from .entry import asks, build_loss, set_up


def pair_levels(name, wanted, student, teacher):
    """Which student level learns from which teacher level.

    Args:
        name (str): Of the term, for messages.
        wanted (Sequence[int] | None): The same indices on both sides. With
            None all levels, in order where both sides have as many, by equal
            size where they do not.
        student, teacher (Sequence[torch.Size]): Shapes seen in the probe.

    Returns:
        list[tuple[int, int]]: Student and teacher index of each pair.
    """
    if wanted is not None:
        wanted = [wanted] if isinstance(wanted, int) else list(wanted)
        common = min(len(student), len(teacher))
        if not wanted or not all(isinstance(level, int)
                                 and 0 <= level < common for level in wanted):
            raise ValueError(expected(
                f'distill.{name}.levels', f'within 0..{common - 1}',
                tuple(wanted), f'There the student has {len(student)} levels '
                f'and the teacher {len(teacher)}.'))
        return [(level, level) for level in wanted]
    if len(student) == len(teacher):
        return [(level, level) for level in range(len(student))]
    pairs = [(i, j) for i, small in enumerate(student)
             for j, large in enumerate(teacher) if small[2:] == large[2:]]
    if not pairs or len({i for i, _ in pairs}) < len(pairs):
        raise ValueError(expected(
            f'distill.{name}', 'read at levels that can be paired',
            f'{[tuple(s) for s in student]} and {[tuple(t) for t in teacher]}',
            'Name the levels to use: levels=(0, 1, ...).'))
    return pairs


def named_terms(name, value):
    """What a loss returns, a tensor or a dict of them, by log key."""
    if isinstance(value, dict):
        return {f'loss_{name}_{key}': item for key, item in value.items()}
    return {f'loss_{name}': value}


def count_bad(feature):
    """``3 of 8 values`` where some are not finite, else an empty string."""
    bad = int((~torch.isfinite(feature)).sum())
    return f'{bad} of {feature.numel()} values' if bad else ''


class LevelTerm(nn.Module):
    """Reads pairs of feature maps, connects them, weighs them with a loss.

    Args:
        name (str): Key of the entry.
        loss (dict): Config of the loss.
        key (str): Of the tap.
        student, teacher (Sequence[torch.Size]): Shapes seen in the probe.
        levels (Sequence[int], optional): See :func:`pair_levels`.
        connector (dict, optional): Projector for every level in place of the
            automatic one; gets ``in_channel`` and ``out_channel``.

    Raises:
        ValueError: The loss needs labels, or the levels cannot be paired.
    """

    needs_teacher = True

    def __init__(self, name, loss, key, student, teacher, levels=None,
                 connector=None):
        super().__init__()
        self.name, self.key = name, key
        self.loss = build_loss(name, loss)
        if asks(self.loss):
            raise ValueError(expected(
                f'distill.{name}.at', "'embedding', where regions have "
                f'labels, as {type(self.loss).__name__} needs them',
                repr(key)))
        self.pairs = pair_levels(name, levels, student, teacher)
        self.connectors = nn.ModuleList()
        if hasattr(self.loss, 'setup'):  # it has its own projectors
            set_up(self.loss,
                   student_widths=[student[i][1] for i, _ in self.pairs],
                   teacher_widths=[teacher[j][1] for _, j in self.pairs])
        if not getattr(self.loss, 'fits_widths', False):
            self.connectors.extend(
                Connector.between(student[i], teacher[j], connector)
                for i, j in self.pairs)

    def describe(self, student, teacher):
        """One line a pair: shapes, projector, resize."""
        for index, (i, j) in enumerate(self.pairs):
            how = (self.connectors[index].describe(student[i], teacher[j])
                   if self.connectors else '')
            yield (f'{self.name}: {self.key}[{i}] {tuple(student[i][1:])} <- '
                   f'{self.key}[{j}] {tuple(teacher[j][1:])}{how}')

    def connected(self, student, teacher):
        """Pairs of features to compare, in fp32: list of two tensors."""
        pairs = [(student[i], teacher[j]) for i, j in self.pairs]
        if self.connectors:
            pairs = [(connector(*pair), pair[1]) for connector, pair
                     in zip(self.connectors, pairs)]
        return [upcast(pair) for pair in pairs]

    def forward(self, student, teacher, class_means=None):
        """Named loss terms from the readings of both passes."""
        pairs = self.connected(student.levels(self.key),
                               teacher.levels(self.key))
        with torch.autocast(pairs[0][0].device.type, enabled=False):
            if getattr(self.loss, 'relates_levels', False):
                value = self.loss(*(tuple(side) for side in zip(*pairs)))
            else:
                value = _add([self.loss(*pair) for pair in pairs])
        return named_terms(self.name, value)

    def fault(self, student, teacher, class_means=None):
        """Where this term stops being finite, in words, or None."""
        student = student.levels(self.key)
        teacher = teacher.levels(self.key)
        for (i, j), pair in zip(self.pairs,
                                self.connected(student, teacher)):
            for role, levels, index, feature in (
                    ('student', student, i, pair[0]),
                    ('teacher', teacher, j, pair[1])):
                for kind, value in (('feature', levels[index]),
                                    ('connected feature', feature)):
                    bad = count_bad(value)
                    if bad:
                        return (f'level {index} of {self.key!r}: {bad} of the '
                                f'{role} {kind}')
            if not getattr(self.loss, 'relates_levels', False):
                values = named_terms('', self.loss(*pair)).values()
                if not all(bool(torch.isfinite(v).all()) for v in values):
                    return f'level {i} of {self.key!r}: the loss of that level'
        return None


def _add(values):
    if isinstance(values[0], dict):
        return {key: sum(value[key] for value in values) for key in values[0]}
    return sum(values)
