"""Runs a setting: data, teacher, weight search, controls, gate, our methods."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any

from kd_ext.errors import value_error
from kd_ext.pseudo_labels.coco_file import read_labels
from kd_ext.teachers.identity import file_digest
from studies.board import Board
from studies.cells import Cell, Choice, cell_digest, make_config, trials
from studies.data import place, prepare, unlabelled_place
from studies.gate import PASSED, judge
from studies.results import Results
from studies.setting import ROOT, Setting
from studies.training import FINISHED, Failed, Stopped, Training

WAITS = 'waits for the teacher'
SEARCH = 'waits for the weight search'
LABELS = 'waits for the labels of the teacher'


class Study:
    """A setting with its work dir and its results.

    Args:
        setting (Setting): What to run.
        work (Path): Folder for data, teachers and cells.
        results (Path): Folder of the JSON.
        jobs (int): Trainings at a time.
    """

    def __init__(self, setting: Setting, work: Path, results: Path, jobs: int) -> None:
        self.setting, self.work, self.out, self.jobs = setting, work, results, jobs
        self.results = Results.read(setting, results)
        self.board = Board(work / setting.name / 'log.txt')
        self.data = place(setting, work)
        self.stop = Event()
        self.failed: list[str] = []
        self._teacher: dict[str, str] | None = None
        self.labels = work / setting.name / 'labels.json'

    def training(self, cell: Cell) -> Training:
        """The training of a cell; those that distil need the teacher to be there."""
        files, labels = None, None
        if self._needs_teacher(cell):
            if self._teacher is None:
                raise value_error('the teacher', 'trained before its students', 'none')
            files = Path(self._teacher['config']), Path(self._teacher['checkpoint'])
        if self.setting.takes_unlabelled(cell.arm):
            labels = self.labels
        cfg = make_config(self.setting, cell, self.data, files, labels)
        digest = cell_digest(self.setting, cell, cfg, self.data, self._teacher if files else None, labels)
        folder = self.work / self.setting.name / cell.name
        if cell.arm is None:  # settings share it
            folder = self.work / 'teachers' / digest[:12]
        return Training(cell, cfg, digest, folder, self.setting.metric)

    def _needs_teacher(self, cell):
        return cell.distils or self.setting.takes_unlabelled(cell.arm)

    def _is_labelled(self):
        """Whether the labels of the unlabelled images are there, made by this teacher."""
        if not self.labels.exists():
            return False
        return self._teacher['digest'].startswith(read_labels(self.labels)['info']['checkpoint_sha256'])

    def _label(self):
        """Lets the teacher label the unlabelled images, once."""
        alone = next(arm for arm in self.setting.arms.values() if not self._needs_teacher(Cell(arm, 0)))
        data = self.labels.with_name('data.py')
        data.parent.mkdir(parents=True, exist_ok=True)
        make_config(self.setting, Cell(alone, 0), self.data, None).dump(data)
        self.board.say('the teacher labels the unlabelled images')
        images = unlabelled_place(self.setting, self.work)
        files = [self._teacher['config'], self._teacher['checkpoint'], images, '--data', data, '--out', self.labels]
        command = [sys.executable, 'tools/pseudo_label.py', *files, '--show-dir', self.labels.with_name('labels')]
        with open(self.labels.with_name('labels.log'), 'a') as log:
            code = subprocess.call([*map(str, command)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        if code:
            raise Failed(f'the labels of the unlabelled images: exit status {code}; the log is {log.name}')

    def teacher(self) -> Training:
        """The training of the teacher."""
        return self.training(Cell(None, self.setting.teacher.seed))

    def plan(self, arms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, str]]:
        """Name and state of each cell, without doing anything."""
        teacher = self.teacher()
        yield teacher.cell.name, _state(teacher)
        if teacher.state == FINISHED:
            self._know(teacher)
        for name in arms:
            arm = self.setting.arms[name]
            choice = self.results.choice(name)
            searched = [cell for cells in trials(self.setting, arm).values() for cell in cells] if arm.searched else []
            for cell in [*searched, *(Cell(arm, seed, choice or Choice()) for seed in seeds)]:
                if choice is None and cell not in searched:
                    yield cell.name, SEARCH
                elif self._needs_teacher(cell) and self._teacher is None:
                    yield cell.name, WAITS
                elif self.setting.takes_unlabelled(cell.arm) and not self._is_labelled():
                    yield cell.name, LABELS
                else:
                    training = self.training(cell)
                    yield cell.name, FINISHED if self._known(training) else _state(training)

    def run(self, arms: Sequence[str], seeds: Sequence[int], past_gate: bool = False) -> bool:
        """Does all that is not done yet: whether nothing failed.

        Our methods run once the gate has passed, or with ``past_gate``.

        Raises:
            Stopped: ``stop`` was set.
        """
        prepare(self.setting, self.work)
        teacher = self.teacher()
        if teacher.state != FINISHED and self._all([teacher]):
            return False
        self.results.teacher = dict(teacher.record() or {}, checkpoint=self._know(teacher))
        if self.setting.unlabelled and not self._is_labelled():
            self._label()
        self._drop_stale()
        ours = [name for name in arms if self.setting.arms[name].role == 'ours']
        self._arms([name for name in arms if name not in ours], seeds)
        gate = judge(self.results)
        for condition in gate.conditions:
            self.board.say(f'gate: {condition.text}: {_WORDS[condition.holds]}')
        self.board.say(f'gate of {self.setting.name}: {gate.verdict}')
        if ours and (past_gate or gate.verdict == PASSED):
            self._arms(ours, seeds)
        elif ours:
            self.board.say(f'not begun, as the gate has not passed: {", ".join(ours)}')
        for text in self.failed:
            self.board.say(text)
        return not self.failed

    def _know(self, teacher: Training) -> str:
        """Makes the teacher known to its students: the digest of its checkpoint."""
        digest = file_digest(teacher.checkpoint)
        self._teacher = dict(
            folder=str(teacher.folder), config=str(teacher.config), checkpoint=str(teacher.checkpoint), digest=digest
        )
        return digest

    def _arms(self, names, seeds):
        """The searches of some arms, then their cells."""
        arms = [self.setting.arms[name] for name in names]
        searches = [arm for arm in arms if arm.searched]
        self._cells([cell for arm in searches for cells in trials(self.setting, arm).values() for cell in cells])
        for arm in searches:
            choice = self.results.choice(arm.name)
            self.board.say(f'weight search of {arm.name}: {choice or "not finished"}')
        chosen = {arm.name: self.results.choice(arm.name) for arm in arms}
        self._cells([Cell(arm, seed, chosen[arm.name]) for seed in seeds for arm in arms if chosen[arm.name]])

    def _cells(self, cells):
        trainings = [self.training(cell) for cell in cells]
        self.failed += self._all([one for one in trainings if not self._known(one)])

    def _known(self, training):
        """Whether the JSON holds the cell as it is declared now."""
        found = self.results.find(training.cell)
        return found is not None and found['digest'] == training.digest

    def _all(self, trainings):
        """Runs trainings, ``jobs`` at a time: the texts of failures."""
        failed = []
        with self.board.shows(trainings), ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(self._one, one): one for one in trainings}
            try:
                for future in as_completed(futures):
                    try:
                        self._keep(futures[future], future.result())
                    except Failed as error:
                        self.board.say(str(error))
                        failed.append(str(error))
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return failed

    def _one(self, training):
        if self.stop.is_set():
            raise Stopped
        self.board.begins(training)
        try:
            return training.run(self.stop, self.board.say)
        finally:
            self.board.ends(training)

    def _keep(self, training: Training, figures: dict[str, Any]) -> None:
        if training.cell.arm is None:
            self.results.teacher = figures
        else:
            self.results.add(training.cell, figures)
            self.write()
        shares = ', '.join(f'{key} {value:.2f}' for key, value in figures['shares'].items())
        self.board.say(
            f'{training.cell.name} ({training.cell.split}): {figures["metric"]:.1f} points, '
            f'{figures["seconds"]:.0f} s' + (f', shares {shares}' if shares else '')
        )

    def _drop_stale(self):
        """Takes figures of cells that are declared otherwise now out of the results."""
        for one in list(self.results.cells):
            arm = self.setting.arms.get(one['arm'])
            if arm is None or one['choice']['variant'] not in arm.recipes():
                self.results.cells.remove(one)
                continue
            cell = Cell(arm, one['seed'], Choice(**one['choice']), one['split'])
            if not self._known(self.training(cell)):
                self.board.say(f'{cell.name}: declared otherwise now, its figures are dropped')
                self.results.discard(cell)
        self.write()

    def write(self) -> None:
        """Writes the JSON."""
        self.results.write(self.out, gate=judge(self.results).to_dict())


_WORDS = {True: 'holds', False: 'does not hold', None: 'not known yet'}


def _state(training):
    if training.state != FINISHED and training.progress()[0]:
        done, total = training.progress()
        return f'{training.state}, {done} of {total} epochs'
    return training.state
