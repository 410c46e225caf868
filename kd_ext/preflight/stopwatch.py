"""Seconds that the parts of a check take."""

from __future__ import annotations

import contextlib
import time
from typing import Iterator


class Stopwatch:
    """Seconds of each part, in order, and of all together.

    Attributes:
        seconds (dict[str, float]): By part.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context whose seconds count as those of ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds since the watch was made."""
        return time.perf_counter() - self._start

    def rows(self) -> Iterator[tuple[str, float]]:
        """``(part, seconds)`` for a table, the total last."""
        yield from self.seconds.items()
        yield 'in all', self.total
