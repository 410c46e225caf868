"""Seconds and memory of a single call."""

from __future__ import annotations

import ctypes
import re
import time
from pathlib import Path
from typing import Any, Callable

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
