"""A figure and a table that compare the spectral norms of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from kd_ext.analysis.spectra.job import Spectra, relative_gaps
from kd_ext.engine.whole_files import replacing


def gaps_of(spectra: dict[str, Spectra]) -> list[float] | None:
    """Relative gaps between student and teacher; None without both."""
    if not {'student', 'teacher'} <= set(spectra):
        return None
    return relative_gaps(spectra['student'], spectra['teacher'])


def _strides(measured: Any, index: int) -> str:
    return '{} -> {}'.format(*measured.strides[index : index + 2])


def spectra_table(spectra: dict[str, Spectra]) -> Table:
    """A row per pair of neighbouring stages and model."""
    gaps = gaps_of(spectra)
    images = next(iter(spectra.values())).sigmas
    title = f'Spectral norms of the transmitting matrices, {len(images)} images'
    caption = 'gap: mean of |student - teacher| / teacher' if gaps else None
    table = Table('stages', 'model', 'strides', title=title, caption=caption)
    for name in ('mean', 'std', 'min', 'max', *(['gap'] if gaps else [])):
        table.add_column(name, justify='right')
    count = images.shape[1]
    numbers = {role: one.numbers() for role, one in spectra.items()}
    for index in range(count):
        for role, measured in spectra.items():
            values = [values[index] for values in numbers[role].values()]
            gap = [f'{gaps[index]:.1%}' if role == 'student' else ''] if gaps else []
            cells = [f'{value:.4g}' for value in values] + gap
            table.add_row(f'{index + 1}, {index + 2}', role, _strides(measured, index), *cells)
        table.add_section()
    return table


def draw_spectra(spectra: dict[str, Spectra], path: str | Path) -> None:
    """Draws the spread over the images, and the gaps of two models, into a PNG at ``path``.

    ``spectra`` are by model, ``dict(teacher=..., student=...)``.
    """
    figure = Figure(figsize=(8, 3.5), dpi=90, layout='constrained')
    FigureCanvasAgg(figure)
    gaps = gaps_of(spectra)
    axes = figure.subplots(1, 2 if gaps else 1, squeeze=False, width_ratios=(5, 3) if gaps else None)[0]
    _boxes(axes[0], spectra)
    first = spectra.get('student') or next(iter(spectra.values()))
    names = [_strides(first, index) for index in range(first.sigmas.shape[1])]
    for axis in axes:
        axis.set_xticks(range(len(names)), names, fontsize=8)
        axis.set_xlabel('strides of neighbouring stages', fontsize=8)
        axis.tick_params(axis='y', labelsize=8)
    if gaps:
        _gaps(axes[1], gaps)
    with replacing(path) as part:
        figure.savefig(part, format=Path(path).suffix[1:])


def _boxes(axis: Any, spectra: dict[str, Spectra]) -> None:
    """A box per pair of stages and model; the whiskers are min and max."""
    width = 0.7 / len(spectra)
    handles = []
    for index, measured in enumerate(spectra.values()):
        left = (index - (len(spectra) - 1) / 2) * width
        count = measured.sigmas.shape[1]
        drawn = axis.boxplot(
            measured.sigmas.numpy(),
            whis=(0, 100),
            widths=0.8 * width,
            positions=[pair + left for pair in range(count)],
            patch_artist=True,
            medianprops=dict(color='black'),
            boxprops=dict(facecolor=f'C{index}'),
        )
        handles.append(drawn['boxes'][0])
    axis.legend(handles, list(spectra), fontsize=8, frameon=False)
    if all(bool((one.sigmas > 0).all()) for one in spectra.values()):
        axis.set_yscale('log')
    axis.set_title('spectral norm: min, quartiles, max over the images', fontsize=9)


def _gaps(axis: Any, gaps: list[float]) -> None:
    axis.bar(range(len(gaps)), gaps, 0.6, color='C3')
    for index, gap in enumerate(gaps):
        axis.text(index, gap, f'{gap:.0%}', ha='center', va='bottom', fontsize=8)
    axis.set_title('mean of |student - teacher| / teacher', fontsize=9)
    axis.margins(y=0.15)
