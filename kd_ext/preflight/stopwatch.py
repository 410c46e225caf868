"""Times the parts of a check."""

from __future__ import annotations

import contextlib
import time
from typing import Iterator


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
