"""The JSON of the check and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mmcv
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.timing import machine
from kd_ext.engine.whole_files import write_text


def begin(path: Path, device: str) -> dict[str, Any]:
    """The report in a file, or a new one if the file is not there or is of another device, torch or kind of ops."""
    fresh = dict(device=device, ops=ops(), machine=machine(), parts={})
    if path.exists():
        known = json.loads(path.read_text())
        if all(known[key] == fresh[key] for key in ('device', 'ops')) and (
            known['machine']['torch'] == torch.__version__
        ):
            return known
    return fresh


def ops() -> str:
    """Whether mmcv's ops are compiled, or those of kd_ext stand in for them."""
    return 'compiled' if any(Path(mmcv.__file__).parent.glob('_ext*.so')) else 'stand-in'


def write(path: Path, report: dict[str, Any]) -> None:
    """Writes the whole file, or leaves the one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report, indent=2) + '\n')


def judged(report: dict[str, Any], names: list[str]) -> int:
    """Exit status: 1 if a part did not end or a row is outside its limit."""
    parts = [report['parts'][name] for name in names]
    return int(any(part['status'] != 'done' or any(row['good'] is False for row in part['rows']) for part in parts))


def show(report: dict[str, Any], names: list[str]) -> None:
    """Prints a line for each row that is measured or outside its limit, and a count of the others."""
    about = report['machine']
    table = Table(
        title=f'{about["gpu"] or about["cpu"]}, torch {about["torch"]}, {report["ops"]} ops', title_justify='left'
    )
    for column, side in (('part', 'left'), ('what', 'left'), ('found', 'right'), ('at most', 'right'), ('', 'left')):
        table.add_column(column, justify=side, overflow='fold')
    for name in names:
        part = report['parts'][name]
        rows = part.get('rows', [])
        judgeable = [row for row in rows if row['good'] is not None]
        fine = sum(row['good'] for row in judgeable)
        ended = f'{fine} of {len(judgeable)} within limits' if part['status'] == 'done' else part['status']
        table.add_row(name, ended, f'{part.get("seconds", 0):.0f} s', '', '', end_section=not rows)
        if 'error' in part:
            table.add_row('', part['error'], '', '', 'failed')
        for row in rows:
            if row['good'] is True and not row['note']:
                continue
            mark = {True: 'ok', False: 'NOT OK', None: ''}[row['good']]
            table.add_row('', row['what'], _short(row['found']), _short(row['limit']), f'{mark} {row["note"]}'.strip())
    Console().print(table)


def _short(value: float | str | None) -> str:
    return '' if value is None else value if isinstance(value, str) else f'{value:.4g}'
