"""Time that ``import kd_ext`` takes beside ``import mmengine.runner, mmrazor``, which its users import anyway.

    python -m benchmarks.import_time --json results/import_time.json

Each import runs in fresh processes, in turn with the others; medians and quartiles of CPU seconds (user + system)
and of wall-clock seconds less those of an empty process are shown. CPU seconds are the ones to compare on a busy
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kd_ext.engine.whole_files import write_text

STATEMENTS = {'nothing': 'pass', 'base': 'import mmengine.runner, mmrazor', 'kd_ext': 'import kd_ext'}


def seconds(statement: str) -> tuple[float, float]:
    """CPU and wall-clock seconds of a fresh process that runs a statement."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, '-W', 'ignore', '-c', statement], check=True)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, wall


def measure(repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """Median and quartiles of both times for each statement, after one round that fills the disk's cache."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STATEMENTS}
    for turn in range(repeats + 1):
        for name, statement in STATEMENTS.items():
            times = seconds(statement)
            if turn:
                found[name].append(times)
    report: dict[str, dict[str, dict[str, float]]] = {}
    for index, clock in enumerate(('cpu', 'wall')):
        empty = statistics.median(times[index] for times in found['nothing'])
        for name in ('base', 'kd_ext'):
            low, middle, high = statistics.quantiles([times[index] - empty for times in found[name]], n=4)
            report.setdefault(clock, {})[name] = dict(median=middle, low=low, high=high)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=15, help='processes for each import (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='file to write')
    args = parser.parse_args()
    report = measure(args.repeats)
    for clock, times in report.items():
        base, ours = times['base'], times['kd_ext']
        for name, one in times.items():
            print(f'{clock:5}{STATEMENTS[name]:34}{one["median"]:6.2f} s  ({one["low"]:.2f} to {one["high"]:.2f})')
        print(f'{clock:5}ratio {ours["median"] / base["median"]:.3f}')
    if args.json:
        described = dict(python=platform.python_version(), machine=platform.machine(), cpus=os.cpu_count())
        content = dict(machine=described, repeats=args.repeats, statements=STATEMENTS, seconds=report)
        write_text(args.json, json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    main()
