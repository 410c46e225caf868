"""Several trainings at a time, with their progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from studies.figures import log_lines
from studies.training import FINISHED, Stopped, Training

EVERY = 20  # seconds from one line to the next where there is no terminal


class Pool:
    """Runs trainings, ``jobs`` at a time, until all are done or one fails.

    Args:
        trainings (Mapping[str, Training]): By the title that is shown; they begin in this order.
        jobs (int): At a time.
        iterations (Mapping[str, int]): Of each title, for the bar; 0 where there is none.
    """

    def __init__(self, trainings: Mapping[str, Training], jobs: int, iterations: Mapping[str, int]) -> None:
        self.trainings, self.jobs, self.iterations = trainings, jobs, iterations
        self.console = Console()
        self.stop = Event()
        self._running: list[str] = []

    def run(self) -> dict[str, dict[str, Any]]:
        """The figures of each title.

        Raises:
            Failed: A process ended with an error; the others were stopped.
            KeyboardInterrupt: After all processes have ended.
        """
        for title, training in self.trainings.items():
            if training.state == FINISHED:
                self._say(f'{title}: finished before, in {training.folder}')
        with self._shown() as refresh, ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(self._one, title): title for title in self.trainings}
            waiting = set(futures)
            try:
                while waiting:
                    done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    refresh()
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return {title: future.result() for future, title in futures.items()}

    def _one(self, title):
        if self.stop.is_set():
            raise Stopped
        training = self.trainings[title]
        known = training.record()
        if known is None:
            self._running.append(title)
            try:
                known = training.run(self.stop, self._say)
            finally:
                self._running.remove(title)
            self._say(f'{title}: {known["metric"]:.1f} mAP')
        return known

    def _say(self, text):
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _done(self, title):
        return max(log_lines(self.trainings[title].folder / 'train', training=True), default=0)

    @contextlib.contextmanager
    def _shown(self) -> Iterator[Any]:
        if not self.console.is_terminal:
            said = time.monotonic()

            def say():
                nonlocal said
                if time.monotonic() - said > EVERY and self._running:
                    said = time.monotonic()
                    self._say(', '.join(f'{title}: {self._state(title)}' for title in list(self._running)))

            yield say
            return
        columns = TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[state]}')
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console) as progress:
            tasks = {}

            def draw():
                for title in list(self._running):
                    if title not in tasks:
                        tasks[title] = progress.add_task(title, total=self.iterations[title] or None, state='')
                    progress.update(tasks[title], completed=self._done(title), state=self._state(title))
                for title in [title for title in tasks if title not in self._running]:
                    progress.remove_task(tasks.pop(title))

            yield draw

    def _state(self, title):
        total = self.iterations[title]
        if not total or (self.trainings[title].folder / 'trained').exists():
            return 'is tested'
        return f'{self._done(title)}/{total} iterations'
