"""The training of one cell: its folder, its process, its figures."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

from mmengine.config import Config

from demo.runs import FAST_MALLOC
from studies.cells import TEST, Cell, epochs_of
from studies.figures import read_curve, read_figures, surroundings
from studies.setting import ROOT

FINISHED, UNFINISHED, CHANGED, MISSING = 'finished', 'unfinished', 'changed', 'not begun'
LOCK = 'lock'


class Failed(Exception):
    """A process of a cell ended with an error; the text names its log."""


class Stopped(Exception):
    """The study was interrupted while this cell trained."""


class Training:
    """Trains a cell in a folder of its own, goes on where it stopped, and keeps its figures.

    The folder holds ``config.py``, the work dir ``train`` with the last two checkpoints, ``score`` of the test,
    a log for each attempt, and ``result.json`` once all is done. A cell that is declared otherwise than the folder
    was made for starts anew.

    Args:
        cell (Cell): What to train.
        cfg (Config): Its config, see :func:`studies.cells.make_config`.
        digest (str): What it is declared by, see :func:`studies.cells.cell_digest`.
        folder (Path): Its own.
        metric (str): Key of the metric that is reported.
    """

    def __init__(self, cell: Cell, cfg: Config, digest: str, folder: Path, metric: str) -> None:
        self.cell, self.cfg, self.digest = cell, cfg, digest
        self.folder, self.metric = folder, metric
        self.epochs = epochs_of(cfg)

    @property
    def config(self) -> Path:
        """The dumped config."""
        return self.folder / 'config.py'

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint, which is the one that is scored."""
        return self.folder / 'train' / f'epoch_{self.epochs}.pth'

    @property
    def state(self) -> str:
        """One of the four states of a cell."""
        try:
            made_for = (self.folder / 'digest').read_text()
        except OSError:
            return MISSING
        if made_for != self.digest:
            return CHANGED
        return FINISHED if (self.folder / 'result.json').exists() else UNFINISHED

    def record(self) -> dict[str, Any] | None:
        """The figures of a finished cell."""
        return json.loads((self.folder / 'result.json').read_text()) if self.state == FINISHED else None

    def run(self, stop: Event, say: Callable[[str], None] = print) -> dict[str, Any]:
        """Does what is not done yet: the figures.

        Raises:
            Failed: The training or the test ended with an error.
            Stopped: ``stop`` was set.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(stop, say) as lock:
            known = self.record()
            if known is not None:
                return known
            if self.state != UNFINISHED:
                self._start_anew()
            if not (self.folder / 'trained').exists():
                self._drop_unvalidated()
                self._call('train', ['tools/train.py', self.config, '--resume', '--skip-check'], lock, stop)
                (self.folder / 'trained').touch()
            if self.cell.split == TEST:
                self._call('score', ['tools/test.py', self.config, self.checkpoint], lock, stop)
            known = dict(digest=self.digest, **read_figures(self), **surroundings())
            write_whole(self.folder / 'result.json', json.dumps(known, indent=1) + '\n')
            return known

    @contextlib.contextmanager
    def _locked(self, stop: Event, say: Callable[[str], None]) -> Iterator[int]:
        # processes inherit the lock: a training that outlived its runner holds it, and is waited for
        with open(self.folder / LOCK, 'w') as file:
            told = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        say(f'{self.cell.name}: an earlier call still trains it; waiting for that')
                    told = True
                    if stop.wait(1):
                        raise Stopped from None
            yield file.fileno()

    def _start_anew(self):
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        self.cfg.work_dir = str(self.folder / 'train')
        self.cfg.dump(self.config)
        (self.folder / 'digest').write_text(self.digest)

    def _drop_unvalidated(self):
        """Removes a checkpoint whose validation was due and not finished: MMEngine would not do it after a resume."""
        validated = {epoch for epoch, _ in read_curve(self.folder / 'train', self.metric)}
        interval = self.cfg.train_cfg.val_interval
        for path in (self.folder / 'train').glob('epoch_*.pth'):
            epoch = int(re.findall(r'\d+', path.name)[-1])
            if (epoch % interval == 0 or epoch == self.epochs) and epoch not in validated:
                path.unlink()
        # of the interrupted epoch, with the weights in its middle: not what an unbroken training passes through
        (self.folder / 'train' / 'interrupted.pth').unlink(missing_ok=True)
        if not self.progress()[0]:
            (self.folder / 'train' / 'last_checkpoint').unlink(missing_ok=True)

    def _call(self, kind, command, lock, stop):
        log = self.folder / f'{kind}-{len([*self.folder.glob(f"{kind}-*.log")]) + 1}.log'
        env = {
            **FAST_MALLOC,
            **os.environ,
            'PYTHONWARNINGS': 'ignore',
            'PYTHONPATH': os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))),
            'OMP_NUM_THREADS': '1',
        }
        command = [sys.executable, *map(str, command), '--work-dir', str(self.folder / kind)]
        with open(log, 'w') as stream:
            # the first line holds the start: with the time of the last one it gives the seconds of an attempt
            stream.write(f'{time.time()}\n')
            stream.flush()
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=stream, stderr=subprocess.STDOUT, pass_fds=[lock]
            )
            while process.poll() is None:
                if stop.wait(0.2):
                    process.send_signal(signal.SIGINT)
                    process.wait()
                    raise Stopped
        if process.returncode:
            # interrupted together with this process, by the terminal
            if process.returncode == 128 + signal.SIGINT:
                raise Stopped
            last = '\n'.join(log.read_text(errors='replace').splitlines()[-5:])
            raise Failed(
                f'{self.cell.name}: {kind} failed (exit status {process.returncode}); the log is {log}\n{last}'
            )

    def progress(self) -> tuple[int, int]:
        """Epochs done, and all of them."""
        done = [int(re.findall(r'\d+', path.name)[-1]) for path in (self.folder / 'train').glob('epoch_*.pth')]
        return max(done, default=0), self.epochs


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    part.write_text(text)
    os.replace(part, path)
