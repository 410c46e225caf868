"""What a study shows: a table on a terminal, and a line for each finished cell in a plain log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from studies.training import Training


class Board:
    """Progress of cells.

    Args:
        log (Path): Plain text file that lines are added to.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.console = Console()
        self._running: dict[Training, float] = {}
        self._lock = Lock()

    def say(self, text: str) -> None:
        """Prints a line and adds it to the log."""
        with self._lock:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log, 'a') as file:
                file.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {text}\n')

    def begins(self, training: Training) -> None:
        """A cell starts to train."""
        self._running[training] = time.monotonic()

    def ends(self, training: Training) -> None:
        """It trains no longer."""
        self._running.pop(training, None)
        self._progress.advance(self._task)

    @contextlib.contextmanager
    def shows(self, trainings: Sequence[Training]) -> Iterator[None]:
        """Context in which these are run."""
        self._progress = Progress(
            TextColumn('cells'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self.console
        )
        self._task = self._progress.add_task('', total=len(trainings))
        if not trainings or not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=2):
            yield

    def _render(self):
        table = Table('cell', 'epochs', 'seconds', box=None)
        for training, start in list(self._running.items()):
            done, total = training.progress()
            table.add_row(training.cell.name, f'{done}/{total}', f'{time.monotonic() - start:.0f}')
        return Group(table, self._progress)
