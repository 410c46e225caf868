"""The curves of a setting."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from studies.page import visible
from studies.results import Results


def draw(results: Results, out: Path) -> None:
    """Writes a small PNG: points on the tuning split against the part of the training, mean over seeds."""
    figure, axis = plt.subplots(figsize=(6, 3.6))
    styles = dict(baseline=('black', '-'), context=(None, ':'), control=(None, '--'), ours=(None, '-'))
    for name in visible(results):
        cells = results.of(name)
        if not cells:
            continue
        # the same epochs for all seeds of an arm
        epochs = [epoch for epoch, _ in cells[0]['curve']]
        means = [statistics.fmean(values) for values in zip(*([v for _, v in one['curve']] for one in cells))]
        colour, style = styles[results.setting.arms[name].role]
        parts = [epoch / epochs[-1] for epoch in epochs]
        axis.plot(parts, means, style, color=colour, lw=1.4, label=results.setting.arms[name].title)
    if results.teacher:
        axis.axhline(results.teacher['curve'][-1][1], color='grey', lw=0.8, label='teacher')
    axis.set_xlabel('part of the training')
    axis.set_ylabel('points on the tuning split')
    axis.legend(fontsize=6, ncol=2)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    # no version of matplotlib in it: the same figures give the same file
    figure.savefig(out, dpi=80, metadata={'Software': None})
    plt.close(figure)
