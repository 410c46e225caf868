"""What the quickstart shows and writes of its trainings."""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from kd_ext.engine.whole_files import write_text
from studies.setting import Setting

METRICS = dict(mAP='coco/bbox_mAP', AP50='coco/bbox_mAP_50', AP75='coco/bbox_mAP_75')
Rows = Mapping[tuple[str, 'int | None'], Mapping[str, Any]]


def mean_and_spread(values: Sequence[float]) -> str:
    """``12.3``, or with several seeds ``12.3 ± 0.4``: mean and standard deviation."""
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def of_role(rows: Rows, role: str) -> list[Mapping[str, Any]]:
    """The rows of a role, in the order of seeds."""
    return [row for (one, _), row in rows.items() if one == role]


def show_table(seeds: Sequence[int], rows: Rows, titles: Mapping[str, str], scenes: int) -> None:
    """Prints a row for each role, and the gain of each over the student alone, by seed."""
    plural = 's' if len(seeds) > 1 else ''
    table = Table(title=f'generated scenes, FCOS, seed{plural} {", ".join(map(str, seeds))}, {scenes} test scenes')
    for column in ('', *METRICS, 'parameters', 'training'):
        table.add_column(column, justify='right' if column else 'left', no_wrap=True)
    found = {role: of_role(rows, role) for role in titles}
    for role, group in found.items():
        if group:
            scores = [mean_and_spread([points(row, key) for row in group]) for key in METRICS.values()]
            took = f'{statistics.mean(row["seconds"] for row in group):.0f} s' if 'seconds' in group[0] else ''
            table.add_row(titles[role], *scores, f'{group[0]["parameters"]:,}', took)
    console = Console(width=max(Console().width, 110))
    console.print(table)
    baseline = found.pop('alone')
    for role in [role for role in found if role != 'teacher' and found[role]]:
        gains = [row['metric'] - alone['metric'] for row, alone in zip(found[role], baseline)]
        shown = ', '.join(f'{gain:+.1f} mAP (seed {seed})' for gain, seed in zip(gains, seeds))
        console.print(f'{titles[role]} against the {titles["alone"]}: {shown}', highlight=False)


def points(row: Mapping[str, Any], key: str) -> float:
    """A metric in points; 0 where nothing was detected."""
    return 100 * row['metrics'].get(key, 0.0)


def write_json(
    args: argparse.Namespace, rows: Rows, facts: Mapping[str, Any], setting: Setting, took: Mapping[str, Any]
) -> None:
    """Writes the figures with all that they came from; ``took`` says what the call cost, and what it reused."""
    args.json.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        command=shlex.join(['bash', 'tools/quickstart.sh', *options(args)]),
        setting=setting.name,
        data=setting.data['generator'],
        epochs=setting.student.epochs,
        seeds=args.seeds,
        **took,
        teacher={key: facts[key] for key in ('sha256', 'recipe', 'seed', 'epochs', 'data')},
        results=[
            dict(role=role, seed=seed, **{key: row[key] for key in KEPT if row.get(key) is not None})
            for (role, seed), row in rows.items()
        ],
        **{key: next(iter(rows.values()))[key] for key in ('versions', 'hardware')},
    )
    write_text(args.json, json.dumps(content, indent=1) + '\n')


KEPT = ('metric', 'metrics', 'shares', 'iterations', 'seconds', 'seconds_per_step', 'parameters')


def options(args: argparse.Namespace) -> Iterable[str]:
    """The options of a call that its figures depend on."""
    yield from ('--seeds', *map(str, args.seeds))
    if args.control:
        yield '--control'
    if args.train_teacher:
        yield '--train-teacher'
    if args.epochs:
        yield from ('--epochs', str(args.epochs))
    yield from ('--test-scenes', str(args.test_scenes))
