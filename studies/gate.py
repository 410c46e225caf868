"""Whether a setting can tell methods apart, before ours are looked at."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from kd_ext.report.statistics import HELPS, paired
from studies.results import Results

PASSED, FAILED, OPEN = 'passed', 'failed', 'not computed yet'


@dataclass(frozen=True)
class Condition:
    """One condition of the gate: a sentence with its figures, and whether it holds (None: not known yet)."""

    text: str
    holds: bool | None


@dataclass(frozen=True)
class Gate:
    """All conditions of a setting."""

    conditions: list[Condition]

    @property
    def verdict(self) -> str:
        """``failed`` as soon as one condition fails; ``passed`` once all hold."""
        if any(one.holds is False for one in self.conditions):
            return FAILED
        return PASSED if all(one.holds for one in self.conditions) else OPEN

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return dict(verdict=self.verdict, conditions=[asdict(one) for one in self.conditions])


def judge(results: Results) -> Gate:
    """The gate of a setting.

    Its conditions: the teacher is better than the student alone by so many points, and by so many standard
    deviations of the student over seeds; the student's mean curve moves by no more than ``flat_points`` over the
    last ``flat_part`` of its training; so many controls have an interval above 0. All need the declared seeds.
    """
    return Gate([_gap(results), _deviations(results), _flat(results), _controls(results)])


def _gap(results):
    wanted = results.setting.gate.points
    teacher, alone = results.teacher, results.complete(results.baseline)
    text = f'teacher minus student alone is at least {wanted:g} points'
    if teacher is None or alone is None:
        return Condition(text, None)
    gap = teacher['metric'] - statistics.fmean(alone.values())
    return Condition(f'{text}: {gap:.1f}', gap >= wanted)


def _deviations(results):
    wanted = results.setting.gate.deviations
    teacher, alone = results.teacher, results.complete(results.baseline)
    text = f'and at least {wanted:g} standard deviations of the student alone'
    if teacher is None or alone is None or len(alone) < 2:
        return Condition(text, None)
    gap, spread = teacher['metric'] - statistics.fmean(alone.values()), statistics.stdev(alone.values())
    return Condition(f'{text}, which is {spread:.2f} points', gap >= wanted * spread)


def _flat(results):
    limits = results.setting.gate
    text = f'the curve of the student alone moves by at most {limits.flat_points:g} points at its end'
    if results.complete(results.baseline) is None:
        return Condition(text, None)
    changes = []
    for cell in results.of(results.baseline):
        curve = cell['curve']
        # the last point before the part that has to be flat
        before = [value for epoch, value in curve if epoch <= (1 - limits.flat_part) * curve[-1][0]]
        if not before:
            return Condition(f'{text}: it has too few points', False)
        changes.append(curve[-1][1] - before[-1])
    change = statistics.fmean(changes)
    return Condition(f'{text}: {change:+.2f}', abs(change) <= limits.flat_points)


def _controls(results):
    wanted = results.setting.gate.controls
    arms = [name for name, arm in results.setting.arms.items() if arm.role == 'control']
    differences = {name: results.differences(name) for name in arms if results.complete(name) is not None}
    helps = [name for name, found in differences.items() if len(found) > 1 and paired(found).verdict == HELPS]
    text = f'at least {wanted} controls have an interval above 0'
    if len(helps) >= wanted:
        return Condition(f'{text}: {", ".join(helps)}', True)
    known = results.complete(results.baseline) is not None and len(differences) == len(arms)
    return Condition(f'{text}: {", ".join(helps) or "none"}' if known else text, False if known else None)
