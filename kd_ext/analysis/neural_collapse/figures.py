"""A figure and a table that compare the neural collapse of several models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from kd_ext.analysis.neural_collapse.measures import Collapse
from kd_ext.engine.whole_files import replacing

# more class names do not fit along an axis
MOST_LABELS = 24
MEASURES = dict(nc1='NC1: spread within / between', nc2='NC2: angles off ETF', nc3='NC3: classifier off means')


def draw_collapse(measures: dict[str, Collapse], path: str | Path) -> None:
    """Draws cosine matrices, norms of the class means, and NC1 to NC3 into a PNG at ``path``.

    ``measures`` are by model, ``dict(teacher=..., student=...)``; classes may differ.
    """
    columns = len(measures)
    figure = Figure(figsize=(max(8, 4 * columns), 8.5), dpi=90, layout='constrained')
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(3, 1, height_ratios=(4, 2.3, 2.2))
    matrices, norms, numbers = parts
    axes = matrices.subplots(1, columns, squeeze=False)[0]
    for axis, (name, measured) in zip(axes, measures.items()):
        image = _matrix(axis, name, measured)
    matrices.colorbar(image, ax=list(axes), shrink=0.8)
    _norms(norms.subplots(), measures)
    for axis, key in zip(numbers.subplots(1, len(MEASURES)), MEASURES):
        _bars(axis, key, measures)
    with replacing(path) as part:
        figure.savefig(part, format=Path(path).suffix[1:])


def _matrix(axis: Any, name: str, measured: Any) -> Any:
    image = axis.imshow(measured.cosines.numpy(), cmap='RdBu_r', vmin=-1, vmax=1)
    axis.set_title(f'{name}: cosines of centred class means', fontsize=9)
    _name_ticks(axis, measured.classes)
    if len(measured.classes) <= MOST_LABELS:
        axis.set_yticks(range(len(measured.classes)), measured.classes, fontsize=6)
    return image


def _name_ticks(axis: Any, names: Sequence[str]) -> None:
    if len(names) <= MOST_LABELS:
        axis.set_xticks(range(len(names)), names, fontsize=6, rotation=60, ha='right', rotation_mode='anchor')


def _norms(axis: Any, measures: dict) -> None:
    """Bars of the norms: a group per class, a bar per model."""
    names = list(dict.fromkeys(name for measured in measures.values() for name in measured.classes))
    width = 0.8 / len(measures)
    for index, (model, measured) in enumerate(measures.items()):
        left = (index - (len(measures) - 1) / 2) * width
        axis.bar([names.index(name) + left for name in measured.classes], measured.norms.tolist(), width, label=model)
    axis.set_title('norms of the class means', fontsize=9)
    axis.tick_params(labelsize=7)
    axis.margins(x=0.01)
    _name_ticks(axis, names)
    axis.legend(
        fontsize=7, loc='lower right', bbox_to_anchor=(1, 1), ncols=len(measures), frameon=False, borderaxespad=0.2
    )


def _bars(axis: Any, key: str, measures: dict) -> None:
    colours = {name: f'C{index}' for index, name in enumerate(measures)}
    values = {name: value for name, one in measures.items() if (value := getattr(one, key)) is not None}
    for index, (name, value) in enumerate(values.items()):
        axis.bar(index, value, color=colours[name])
        axis.text(index, value, f'{value:.3g}', ha='center', va='bottom', fontsize=7)
    axis.set_xticks(range(len(values)), list(values), fontsize=7)
    axis.set_title(MEASURES[key], fontsize=9)
    axis.tick_params(axis='y', labelsize=7)
    axis.margins(y=0.15)


def collapse_table(measures: dict[str, Collapse]) -> Table:
    """A row per model, for ``rich.print``; the caption names the classes that were left out."""
    columns = ('model', 'classes', 'regions', 'NC1', 'NC2', 'NC2 std', 'NC3', 'norm spread')
    table = Table(*columns, title='Neural collapse (0: complete)', caption=_left_out(measures))
    for name, measured in measures.items():
        values = (measured.nc1, measured.nc2, measured.nc2_std, measured.nc3, measured.norm_spread)
        cells = ('-' if value is None else f'{value:.4g}' for value in values)
        table.add_row(name, str(len(measured.classes)), f'{int(measured.counts.sum()):,}', *cells)
    return table


def _left_out(measures: dict) -> str | None:
    lines = [
        f'{model}, too few regions: ' + ', '.join(f'{name} ({count})' for name, count in measured.left_out.items())
        for model, measured in measures.items()
        if measured.left_out
    ]
    return '\n'.join(lines) or None
