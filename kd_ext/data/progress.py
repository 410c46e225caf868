"""Progress of a long job on stderr: a bar on a terminal, else a line from time to time."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from mmengine.dist import get_world_size, is_main_process
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar:
    """Shows steps done, a note and the remaining time, on rank 0 alone.

    Args:
        title: Text before the bar; None shows nothing.
        total: Steps of all processes.
        first: Steps done before this run.
        unit: Name of the steps, in the plural.
        interval: Seconds between lines without a terminal.
    """

    def __init__(
        self, title: str | None, total: int, first: int = 0, unit: str = 'iterations', interval: float = 15.0
    ) -> None:
        self.title, self.total, self.first, self.unit, self.interval = title, total, first, unit, interval
        self._bar: Progress | None = None
        self._start = self._shown = time.monotonic()
        self._shows = title is not None and is_main_process()

    def start(self) -> None:
        """Starts the clock, and the bar on a terminal."""
        self._start = self._shown = time.monotonic()
        if self._shows and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn('{task.description:<28}'),
                BarColumn(None),
                MofNCompleteColumn(),
                TextColumn('{task.fields[note]}'),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(str(self.title), total=self.total, completed=self.first, note='')

    def stop(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, note: str) -> None:
        """Moves the bar to ``done`` steps, or prints a line when one is due."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif self._shows and (now - self._shown >= self.interval or done == self.total):
            self._shown = now
            left = (now - self._start) / max(done - self.first, 1) * (self.total - done)
            print(
                f'{self.title}: {done}/{self.total} {self.unit}, {note}, {left:.0f} s left',
                file=sys.stderr,
                flush=True,
            )


class ImageProgress(ProgressBar):
    """Context that shows images done and images per second.

    It assumes that the other processes are as fast as this one.
    """

    def __init__(self, title: str | None, total: int, first: int = 0, interval: float = 15.0) -> None:
        super().__init__(title, total, first, 'images', interval)
        self.images = 0  # of this process

    def __enter__(self) -> ImageProgress:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def step(self) -> None:
        """Counts an image of this process."""
        self.images += 1
        here = self.images * get_world_size()
        pace = here / max(time.monotonic() - self._start, 1e-6)
        self.show(min(self.first + here, self.total), f'{pace:.1f} images/s')
