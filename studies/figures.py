"""What a finished training left behind, as figures."""

from __future__ import annotations

import functools
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_ext.errors import near_matches, value_error
from studies.setting import ROOT

if TYPE_CHECKING:
    from studies.training import Training

SHARE = 'distill.share_'
PERCENT = 100  # metrics are given in points


def read_figures(training: Training) -> dict[str, Any]:
    """Figures of a cell whose training, and test if it has one, are done.

    ``metric`` is that of the last checkpoint, in points, on the split of the cell; ``curve`` the validations on the
    tuning split, as (epoch, points); ``shares`` those of the terms in the loss, over the last tenth of the training.
    """
    folder, name = training.folder, training.metric
    steps = log_lines(folder / 'train', training=True)
    curve = read_curve(folder / 'train', name)
    metrics = read_score(folder / 'score') if (folder / 'score').exists() else None
    value = curve[-1][1] if metrics is None else points(metrics, name)
    last = [one for step, one in steps.items() if step > 0.9 * max(steps)]
    shares = {key for one in last for key in one if key.startswith(SHARE)}
    return dict(
        metric=value,
        metrics=metrics and {key: number for key, number in metrics.items() if '/' in key},
        curve=curve,
        shares={key[len(SHARE) :]: round(statistics.fmean(one[key] for one in last), 5) for key in sorted(shares)},
        iterations=max(steps),
        seconds=round(sum(_seconds(log) for log in folder.glob('train-*.log')), 1),
        seconds_per_step=round(statistics.median(one['time'] for one in steps.values()), 5),
        attempts=len([*folder.glob('train-*.log')]),
    )


def read_curve(folder: Path, metric: str) -> list[list[float]]:
    """Validations of a work dir so far: epoch and points."""
    return [[epoch, points(line, metric)] for epoch, line in sorted(log_lines(folder, training=False).items())]


def points(metrics: dict[str, Any], name: str) -> float:
    """A metric in points; 0 where nothing was detected.

    Raises:
        ValueError: There are other metrics, and not this one.
    """
    if name not in metrics:
        others = [key for key in metrics if '/' in key]
        if others:
            raise value_error('metric', f'one of {", ".join(others)}', repr(name), near_matches(name, others))
        return 0.0  # COCO's evaluation gives nothing where nothing was detected
    return round(PERCENT * metrics[name], 4)


def log_lines(folder: Path, training: bool) -> dict[int, dict[str, Any]]:
    """The logged lines of training, or of validation, by step; of a step that was repeated the later one."""
    found = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # cut short when the process was killed
                continue
            if ('loss' in line) == training:
                found[line['step']] = line
    return found


def read_score(folder: Path) -> dict[str, Any]:
    """The metrics that ``tools/test.py`` wrote into a work dir."""
    paths = [path for path in folder.glob('*/*.json') if path.stem == path.parent.name]
    return json.loads(max(paths).read_text())


def _seconds(log):
    with open(log) as file:
        return os.path.getmtime(log) - float(file.readline())


@functools.cache
def _commit():
    def git(*command):
        return subprocess.run(
            ['git', *command], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ).stdout.strip()

    changed = git('status', '--porcelain', '--', 'kd_ext', 'tools', 'configs', 'studies', 'demo')
    return (git('rev-parse', '--short', 'HEAD') or 'unknown') + (' and changes' if changed else '')


@functools.cache
def surroundings() -> dict[str, Any]:
    """Commit, versions and hardware."""
    import cv2
    import mmcv
    import mmdet
    import mmengine
    import numpy
    import torch

    import kd_ext
    from benchmarks.timing import machine

    found = machine()
    return dict(
        commit=_commit(),
        versions=dict(
            kd_ext=kd_ext.__version__,
            python=platform.python_version(),
            **{one.__name__: str(one.__version__) for one in (torch, mmcv, mmdet, mmengine, numpy, cv2)},
        ),
        hardware=dict(cpu=found['cpu'], cores=found['cores'], gpu=found['gpu'], threads=1),
    )
