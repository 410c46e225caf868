"""What the parts of a check cost."""

import contextlib
import time


class Stopwatch:
    """Seconds of each part, in order, and of all together.

    Attributes:
        seconds (dict[str, float]): By part.
    """

    def __init__(self):
        self.seconds = {}
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name):
        """Context whose seconds count as those of ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

    @property
    def total(self):
        """Seconds since the watch was made."""
        return time.perf_counter() - self._start

    def rows(self):
        """``(part, seconds)`` for a table, the total last."""
        yield from self.seconds.items()
        yield 'in all', self.total
