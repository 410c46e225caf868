"""Seconds and memory of a call, and seconds of the parts of a check."""

from __future__ import annotations

import contextlib
import ctypes
import re
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import torch

STATUS = Path('/proc/self/status')


def seconds(run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call, including its pending work on a GPU."""
    _synchronise()
    start = clock()
    run()
    _synchronise()
    return clock() - start


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(run: Callable[[], Any]) -> float | None:
    """Peak of the additional memory of one call in MiB, with temporaries and gradients but without its inputs.

    On a GPU the allocator reports it. None if neither GPU nor /proc does.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        # returns freed pages to the system: reusing them would not count
        ctypes.CDLL('libc.so.6').malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return None
    before = _status('VmRSS')
    run()
    return (_status('VmHWM') - before) / 2**10


def cost(run: Callable[[], Any]) -> tuple[float, float | None]:
    """Seconds and :func:`peak_memory` of one call."""
    times: list[float] = []
    memory = peak_memory(lambda: times.append(seconds(run)))
    return times[0], memory


def _status(key: str) -> int:
    found = re.search(rf'{key}:\s+(\d+) kB', STATUS.read_text())
    return int(found[1]) if found else 0


class Stopwatch:
    """Measures the seconds of each part, in order, and of all together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context whose duration is recorded under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds since the stopwatch was created."""
        return time.perf_counter() - self._start

    def rows(self) -> Iterator[tuple[str, float]]:
        """``(part, seconds)`` for a table, the total last."""
        yield from self.seconds.items()
        yield 'in all', self.total
