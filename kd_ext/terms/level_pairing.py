"""Pairs student levels with teacher levels.

A map's stride is the side of the probe image over that of the map, rounded to a power of two: padding makes a
coarsest level 5 x 5 in one detector and 6 x 6 in another.
"""

from __future__ import annotations

import math
from typing import Any, Sequence, Tuple

from kd_ext.build.probe import PROBE_SIZE
from kd_ext.errors import expected, value_error
from kd_ext.terms.match_table import Side

Shape = Tuple[int, ...]


def stride_of(shape: Shape) -> int | None:
    """Stride of a probed map (B, C, H, W); None for other shapes."""
    return 2 ** round(math.log2(PROBE_SIZE / shape[3])) if len(shape) == 4 else None


def pair_levels(
    name: str, wanted: Any, student: Sequence[Shape], teacher: Sequence[Shape], least: int = 1
) -> list[tuple[int, int]]:
    """Pairs student levels with teacher levels.

    Args:
        name: Of the term, for messages.
        wanted: Level indices, the same on both sides, or pairs of a student and a teacher index. None pairs levels
            by stride if no two levels of a side have the same. If strides repeat (dilated stages), are unknown or
            all differ, two sides with equally many levels are paired in order.
        student, teacher: Shapes seen in the probe.
        least: Number of pairs that the loss needs. A loss that needs several relates levels to one another, so
            levels with known, differing strides are not paired in order.

    Returns:
        Student and teacher index of each pair.

    Raises:
        ValueError: A level does not exist, or there are fewer than ``least`` pairs.
    """
    if wanted is None:
        pairs = _by_stride_or_order(student, teacher, least)
    else:
        pairs = _named(name, wanted, student, teacher)
    if len(pairs) < least:
        raise ValueError(_too_few(name, student, teacher, least))
    return pairs


def _by_stride_or_order(student: Sequence[Shape], teacher: Sequence[Shape], least: int) -> list[tuple[int, int]]:
    ours, theirs = ([stride_of(shape) for shape in shapes] for shapes in (student, teacher))
    in_order = [(level, level) for level in range(len(ours))] if len(ours) == len(theirs) else []
    known = all(None not in strides and len({*strides}) == len(strides) for strides in (ours, theirs))
    if not known:
        return in_order
    pairs = [(level, theirs.index(stride)) for level, stride in enumerate(ours) if stride in theirs]
    if not pairs and least == 1:
        return in_order
    return pairs


def _named(name: str, wanted: Any, student: Sequence[Shape], teacher: Sequence[Shape]) -> list[tuple[int, int]]:
    counts = len(student), len(teacher)
    wanted = wanted if isinstance(wanted, (tuple, list)) else [wanted]
    pairs = [(level, level) if isinstance(level, int) else level for level in wanted]
    if not pairs or not all(isinstance(pair, (tuple, list)) and _within(pair, counts) for pair in pairs):
        raise value_error(
            f'distill.{name}.levels',
            f'within 0..{min(counts) - 1}, or pairs of a student and a teacher level',
            tuple(wanted),
            f'There the student has {counts[0]} levels and the teacher {counts[1]}.',
        )
    pairs = [tuple(pair) for pair in pairs]
    if len({*pairs}) < len(pairs):
        remedy = 'level_weights=, one number per pair, makes a pair count for more.'
        raise value_error(f'distill.{name}.levels', 'without a pair of levels twice', tuple(wanted), remedy)
    return pairs


def _within(pair: Sequence[Any], counts: tuple[int, int]) -> bool:
    return len(pair) == 2 and all(type(level) is int and 0 <= level < count for level, count in zip(pair, counts))


def _too_few(name: str, student: Sequence[Shape], teacher: Sequence[Shape], least: int) -> str:
    needs = 'levels that can be paired' if least == 1 else f'levels of which {least} or more can be paired'
    sides = f"the student's {_strides(student)} and the teacher's {_strides(teacher)}"
    remedy = 'Name pairs of a student and a teacher level, levels=((0, 1), (1, 2)), or tap another place.'
    return expected(f'distill.{name}', f'read at {needs} by stride', sides, remedy)


def _strides(shapes: Sequence[Shape]) -> str:
    if any(stride_of(shape) is None for shape in shapes):
        return f'shapes {[tuple(shape) for shape in shapes]}'
    return 'strides ' + ', '.join(str(stride_of(shape)) for shape in shapes)


def side(key: str, level: int, shape: Shape) -> Side:
    """The :class:`Side` of a probed map (B, C, H, W)."""
    return Side(f'{key}[{level}]', tuple(shape[1:]), stride_of(shape))


def unpaired(pairs: list[tuple[int, int]], student: Sequence[Shape], teacher: Sequence[Shape]) -> str:
    """``student 16; teacher 4, 64``: the strides of levels without a partner."""
    texts = []
    for side, (role, shapes) in enumerate(dict(student=student, teacher=teacher).items()):
        used = {pair[side] for pair in pairs}
        left = [str(stride_of(shape) or tuple(shape)) for level, shape in enumerate(shapes) if level not in used]
        texts += [f'{role} {", ".join(left)}'] if left else []
    return '; '.join(texts)
