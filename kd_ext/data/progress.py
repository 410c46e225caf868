"""Progress over the images of a data set, on a terminal and in a plain log."""

import sys
import time

from mmengine.dist import get_world_size, is_main_process
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ImageProgress:
    """Context that shows images done, images a second and remaining time.

    On stderr, of rank 0, which takes the other processes to be as far as it is. Without a terminal it is a line
    every ``interval`` seconds.

    Args:
        title (str, optional): Put before the bar; None shows nothing.
        total (int): Images of all processes.
        first (int): Those done before.
        interval (float): Seconds.
    """

    def __init__(self, title, total, first=0, interval=15.0):
        self.title, self.total, self.first = title, total, first
        self.interval = interval
        self.images = 0
        self._bar = None

    def __enter__(self):
        self._start = self._shown = time.monotonic()
        self._shows = self.title is not None and is_main_process()
        if self._shows and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn('{task.description}'),
                BarColumn(None),
                MofNCompleteColumn(),
                TextColumn('{task.fields[pace]:.1f} images/s'),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.first, pace=0.0)
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.stop()

    def step(self):
        """Another image of this process is done."""
        self.images += 1
        if not self._shows:
            return
        now = time.monotonic()
        pace = self.images * get_world_size() / max(now - self._start, 1e-6)
        done = min(self.first + self.images * get_world_size(), self.total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, pace=pace)
        elif now - self._shown >= self.interval or done == self.total:
            self._shown = now
            print(
                f'{self.title}: {done}/{self.total} images, '
                f'{pace:.1f} images/s, {(self.total - done) / pace:.0f} s '
                'left',
                file=sys.stderr,
                flush=True,
            )
