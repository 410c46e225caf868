"""The figure of ``benchmarks/growth.py``."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kd_ext.engine.whole_files import replacing

COLUMNS = 2
PANEL = 4.2, 3.2  # inches
DPI = 90


def draw(report, path):
    """One panel a quantity, a line a loss, on logarithmic axes.

    Args:
        report (list[dict]): ``loss``, ``along``, ``amounts``, ``seconds`` and ``time`` (the exponent) of each
            line.
        path (Path): A PNG.
    """
    panels = list(dict.fromkeys(line['along'] for line in report))
    rows = -(-len(panels) // COLUMNS)
    figure = Figure((PANEL[0] * COLUMNS, PANEL[1] * rows), layout='constrained')
    FigureCanvasAgg(figure)
    for index, along in enumerate(panels):
        axes = figure.add_subplot(rows, COLUMNS, index + 1)
        lines = [line for line in report if line['along'] == along]
        for line in lines:
            axes.loglog(
                line['amounts'],
                [1e3 * value for value in line['seconds']],
                marker='o',
                markersize=3,
                label=f'{line["loss"]} ({line["time"]:.2f})',
            )
        _guides(axes, lines)
        amounts = lines[0]['amounts']
        axes.set_xticks(amounts, [_short(value) for value in amounts])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(f'{along} (dotted: power 1, dashed: 2)')
        axes.set_ylabel('forward + backward, ms')
        axes.legend(fontsize=7, title='exponent', title_fontsize=7)
    with replacing(path) as part:
        figure.savefig(part, format=Path(path).suffix[1:], dpi=DPI)


def _short(value):
    return f'{value / 1e6:.2g}M' if value >= 1e5 else str(value)


def _guides(axes, lines):
    """Slopes 1 and 2 from the middle of the first values."""
    start = np.median([line['seconds'][0] for line in lines]) * 1e3
    ends = np.array([lines[0]['amounts'][0], lines[0]['amounts'][-1]], float)
    top = axes.get_ylim()[1]
    for power, style in ((1, ':'), (2, '--')):
        axes.plot(ends, start * (ends / ends[0]) ** power, style, color='grey', linewidth=0.8)
    axes.set_ylim(top=top)
