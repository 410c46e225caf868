"""Timing of candidates side by side, and what the numbers were taken on."""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Any, Callable

import torch

from kd_ext.preflight.timing import peak_memory, seconds

__all__ = ['CLOCKS', 'add_clock', 'interleave', 'machine', 'peak_memory', 'quartiles', 'summarise']
CLOCKS = dict(wall=time.perf_counter, cpu=time.process_time)
MEMORY = (
    'Peak resident memory of the process during one run above what it '
    'held before (VmHWM after a reset, in MiB): temporaries and the '
    "student's gradient count, the inputs do not."
)


def interleave(
    candidates: dict[str, Callable[[], None]],
    repeats: int,
    slow: dict[str, int],
    progress: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every run of every candidate.

    Each repeat runs all candidates one after the other, so that whatever else happens on the machine meets all of
    them; the first one moves on by one each time. Each turn is two runs, and the second is timed: the first would
    pay for the pages and caches that the candidate before left. ``slow`` names those that run in fewer repeats,
    after all others and once: they take gigabytes, and what the allocator keeps of those makes every later
    candidate, mse most of all, faster than in a training. ``clock=time.process_time`` counts the seconds of all
    threads of this process, which others on the machine disturb less.
    """
    names = [name for name in candidates if name not in slow]
    times = {name: [] for name in candidates}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            candidates[name]()
            times[name].append(seconds(candidates[name], clock))
        if progress is not None:
            progress()
    for name, runs in slow.items():
        if name in candidates:
            times[name] = [seconds(candidates[name], clock) for _ in range(runs)]
    return times


def summarise(times: dict[str, list[float]], unit: str) -> dict[str, dict]:
    """Median, quartiles, and the ratio to ``unit`` in the same repeat."""
    rows = {}
    for name, values in times.items():
        ratios = [value / one for value, one in zip(values, times[unit])]
        low, high = quartiles(values)
        rows[name] = dict(
            runs=len(values),
            median_ms=1e3 * statistics.median(values),
            quartile_low_ms=1e3 * low,
            quartile_high_ms=1e3 * high,
            min_ms=1e3 * min(values),
            ratio=statistics.median(ratios),
            ratio_quartiles=list(quartiles(ratios)),
        )
    return rows


def quartiles(values: list[float]) -> tuple[float, float]:
    """Lower and upper quartile; of one value it twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, high


def machine() -> dict:
    """What a reader needs to judge the numbers."""
    cpu = platform.processor()
    info = Path('/proc/cpuinfo')
    if info.exists():
        match = re.search(r'model name\s*: (.+)', info.read_text())
        cpu = match.group(1) if match else cpu
    return dict(
        cpu=cpu,
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=(torch.cuda.get_device_name() if torch.cuda.is_available() else None),
        load_average=round(os.getloadavg()[0], 2),
        torch=torch.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        blas='MKL' if torch.backends.mkl.is_available() else 'other',
        memory=MEMORY,
    )


def add_clock(parser: argparse.ArgumentParser) -> None:
    """Adds the option that chooses one of ``CLOCKS``."""
    parser.add_argument(
        '--clock',
        choices=CLOCKS,
        default='wall',
        help='cpu counts the seconds of this process, for a machine that others use (default: %(default)s)',
    )
