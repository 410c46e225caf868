"""The figures of a setting: what runs, the gate and the page read and write."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studies.cells import TEST, Cell, Choice, trials
from studies.setting import ROOT, Setting
from studies.training import write_whole

FOLDER = ROOT / 'results' / 'studies'


class Results:
    """Finished cells of a setting, each a dict of its figures with arm, seed, split and choice.

    Args:
        setting (Setting): What was declared.
        teacher (dict, optional): Figures of the teacher.
        cells (list[dict]): Of the others.
    """

    def __init__(
        self, setting: Setting, teacher: dict[str, Any] | None = None, cells: list[dict[str, Any]] | None = None
    ) -> None:
        self.setting, self.teacher = setting, teacher
        self.cells = list(cells or [])
        self.outdated = False  # whether the file was written for another declaration

    @classmethod
    def read(cls, setting: Setting, folder: Path = FOLDER) -> Results:
        """From the JSON of a setting; empty where there is none."""
        path = folder / f'{setting.name}.json'
        if not path.exists():
            return cls(setting)
        content = json.loads(path.read_text())
        found = cls(setting, content['teacher'], content['cells'])
        found.outdated = content['declared'] != json.loads(json.dumps(declaration(setting)))
        return found

    def write(self, folder: Path, **extra: Any) -> None:
        """The JSON of a setting, in the order of the declaration."""
        order = [*self.setting.arms]
        # an arm that is no longer declared has no place
        self.cells = [one for one in self.cells if one['arm'] in order]
        self.cells.sort(key=lambda one: (order.index(one['arm']), one['split'], str(one['choice']), one['seed']))
        head = dict(
            setting=self.setting.name,
            command=f'python -m studies.run {self.setting.name}',
            declared=declaration(self.setting),
            search={name: self.searched(name) for name, arm in self.setting.arms.items() if arm.searched},
            **extra,
            teacher=self.teacher,
        )
        # a line for each cell, so that a diff shows what ran
        lines = ',\n'.join(json.dumps(one) for one in self.cells)
        text = f'{json.dumps(head, indent=1)[:-2]},\n "cells": [\n{lines}\n ]\n}}\n'
        write_whole(folder / f'{self.setting.name}.json', text)

    def find(self, cell: Cell) -> dict[str, Any] | None:
        """The figures of a cell, whatever they were declared by."""
        wanted = _key(self.describe(cell))
        return next((one for one in self.cells if _key(one) == wanted), None)

    def add(self, cell: Cell, figures: dict[str, Any]) -> None:
        """Puts a cell's figures in place of older ones."""
        described = {**self.describe(cell), **figures}
        self.discard(cell)
        self.cells.append(described)

    def discard(self, cell: Cell) -> None:
        """Forgets a cell."""
        unwanted = _key(self.describe(cell))
        self.cells = [one for one in self.cells if _key(one) != unwanted]

    @staticmethod
    def describe(cell: Cell) -> dict[str, Any]:
        """What tells a cell from others; the teacher has no place among them."""
        assert cell.arm is not None
        return dict(arm=cell.arm.name, seed=cell.seed, split=cell.split, choice=asdict(cell.choice))

    @property
    def baseline(self) -> str:
        """The arm that others are compared with."""
        return next(name for name, arm in self.setting.arms.items() if arm.role == 'baseline')

    def of(self, arm: str) -> list[dict[str, Any]]:
        """The reported cells of an arm, by seed; those of what the search chose, where it had to."""
        choice = self.choice(arm)
        found = [one for one in self.cells if one['arm'] == arm and one['split'] == TEST]
        found = [one for one in found if choice is not None and one['choice'] == asdict(choice)]
        return sorted((one for one in found if one['seed'] in self.setting.seeds), key=lambda one: one['seed'])

    def metric(self, arm: str) -> dict[int, float]:
        """Points by seed, of the seeds that ran."""
        return {one['seed']: one['metric'] for one in self.of(arm)}

    def complete(self, arm: str) -> dict[int, float] | None:
        """The same once every declared seed ran, before that None."""
        found = self.metric(arm)
        return found if set(found) == set(self.setting.seeds) else None

    def differences(self, arm: str, other: str | None = None) -> list[float]:
        """Arm minus another, by default the student alone, for each seed that both have."""
        arm_by_seed, base = self.metric(arm), self.metric(other or self.baseline)
        return [arm_by_seed[seed] - base[seed] for seed in sorted(set(arm_by_seed) & set(base))]

    def searched(self, arm: str) -> dict[str, Any]:
        """What the weight search of an arm tried: mean points on the tuning split, and the choice."""
        tries = []
        for choice, cells in trials(self.setting, self.setting.arms[arm]).items():
            found = [self.find(cell) for cell in cells]
            seeds = {str(one['seed']): one['metric'] for one in found if one}
            mean = round(statistics.fmean(seeds.values()), 4) if len(seeds) == len(cells) else None
            tries.append(dict(asdict(choice), seeds=seeds, mean=mean))
        known = all(one['mean'] is not None for one in tries)
        # the smaller share where two are equal
        best = max(tries, key=lambda one: (one['mean'], -one['share'])) if known else None
        return dict(tries=tries, chosen=best and dict(variant=best['variant'], share=best['share']))

    def choice(self, arm: str) -> Choice | None:
        """What the arm is trained with; None while its search is not done."""
        if not self.setting.arms[arm].searched:
            return Choice(next(iter(self.setting.arms[arm].recipes())))
        chosen = self.searched(arm)['chosen']
        return Choice(**chosen) if chosen else None


def declaration(setting: Setting) -> dict[str, Any]:
    """What the JSON keeps of a setting."""
    content = asdict(setting)
    del content['name']
    if content['unlabelled'] is None:  # as settings without them were written before
        del content['unlabelled']
    return content


def _key(one):
    return one['arm'], one['seed'], one['split'], tuple(one['choice'].values())
