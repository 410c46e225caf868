"""Charts as inline SVG that takes its text colour and font from the page, with alternative text."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

TEXT = '#010203'  # stands for the page's colour
COLOURS = dict(teacher='#8b6fd8', alone='#d9822b', distilled='#2a93d5', before='#7d8894')
MARKERS = dict(teacher='D', alone='o', distilled='s', before='^')
TERMS = ('#2a93d5', '#3aa76d', '#c65a9a', '#b08a1f', '#d9822b', '#8b6fd8')
STYLE: Any = {
    'font.size': 9.5,
    'axes.titlesize': 10,
    'text.color': TEXT,
    'axes.edgecolor': TEXT,
    'axes.labelcolor': TEXT,
    'xtick.color': TEXT,
    'ytick.color': TEXT,
    'axes.grid': True,
    'grid.color': TEXT,
    'grid.alpha': 0.15,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'legend.frameon': False,
    'legend.fontsize': 9,
    'svg.fonttype': 'none',
}


class Chart:
    """An SVG and what it says in words."""

    def __init__(self, name: str, title: str, alt: str) -> None:
        self.name, self.title, self.alt = name, title, alt
        self.svg = ''

    @contextlib.contextmanager
    def axis(self, width: float = 4.4, height: float = 2.7) -> Iterator[Any]:
        """The axis to draw on, in inches; afterwards ``svg`` is set."""
        with matplotlib.rc_context({**STYLE, 'svg.hashsalt': self.name}):
            figure = Figure(figsize=(width, height), layout='constrained')
            FigureCanvasSVG(figure)
            yield figure.subplots()
            figure.patch.set_alpha(0)
            for axis in figure.axes:
                axis.patch.set_alpha(0)
            file = io.StringIO()
            figure.savefig(file, format='svg', metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')))
        text = file.getvalue()
        text = text[text.index('<svg') :].replace(TEXT, 'currentColor')
        # several charts share the page, so ids get the name of theirs
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'(href="#|url\(#)', rf'\g<1>{self.name}-', text)
        text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
        # the page sets the size
        self.svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', re.sub(r' height="[\d.]+pt"', '', text, count=1))


def role_of(name: str) -> str:
    """``alone`` of ``alone, seed 1``."""
    return name.partition(',')[0]


def lines(
    name: str, title: str, curves: Mapping[str, tuple[Sequence, Sequence]], unit: str = '', colours: Any = None
) -> Chart | None:
    """Curves over training steps; a run's name gives the colour unless ``colours`` does. None without a point."""
    curves = {key: value for key, value in curves.items() if len(value[0])}
    if not curves:
        return None
    ends = ', '.join(f'{key} from {y[0]:.3g} to {y[-1]:.3g}' for key, (_, y) in curves.items())
    chart = Chart(name, title, f'{title} over training steps: {ends}.')
    seen = set()
    with chart.axis() as axis:
        for key, (x, y) in curves.items():
            label = key if colours else role_of(key)
            colour = colours[key] if colours else COLOURS[label]
            dashes = '--' if label == 'alone' else '-'
            marker = 'o' if len(x) < 15 else None
            shown = None if label in seen else label
            axis.plot(x, y, dashes, color=colour, lw=1.6, ms=3.5, marker=marker, label=shown)
            seen.add(label)
        values = [value for _, y in curves.values() for value in y]
        if min(values) > 0 and max(values) > 30 * min(values):
            axis.set_yscale('log')
        axis.set_xlabel('step')
        axis.set_ylabel(unit)
        if len(seen) > 1:
            axis.legend()
    return chart


def dots(name: str, title: str, rows: Mapping[str, Mapping[str, float | None]], unit: str) -> Chart | None:
    """A row per thing, with a mark per role."""
    if not rows:
        return None
    words = '; '.join(f'{key}: ' + ', '.join(_said(role, v) for role, v in row.items()) for key, row in rows.items())
    chart = Chart(name, title, f'{title}. {words}.')
    with chart.axis(height=1.1 + 0.26 * len(rows)) as axis:
        for role in dict.fromkeys(role for row in rows.values() for role in row):
            points = [(row[role], at) for at, row in enumerate(rows.values()) if row.get(role) is not None]
            x, y = [one for one, _ in points], [at for _, at in points]
            axis.plot(x, y, MARKERS[role], color=COLOURS[role], ms=6, label=role)
        for at, row in enumerate(rows.values()):
            if row.get('alone') is not None and row.get('distilled') is not None:
                axis.plot([row['alone'], row['distilled']], [at, at], color=COLOURS['distilled'], lw=1.6, zorder=1)
        axis.set_xlim(left=0, right=None if any(v for row in rows.values() for v in row.values()) else 1)
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlabel(unit)
        axis.figure.legend(loc='outside lower center', ncols=3)
    return chart


def _said(role: str, value: float | None) -> str:
    return f'{role} none' if value is None else f'{role} {value:.3g}'


def bars(
    name: str, title: str, rows: Mapping[str, Mapping[str, float]], unit: str, spread: Mapping[str, Any] | None = None
) -> Chart | None:
    """A group of bars per thing, a bar per role; ``spread`` has whiskers ``{role: [low, ...]}`` of their length."""
    if not rows:
        return None
    roles = list(dict.fromkeys(role for row in rows.values() for role in row))
    words = '; '.join(f'{key}: ' + ', '.join(_said(role, v) for role, v in row.items()) for key, row in rows.items())
    chart = Chart(name, title, f'{title}. {words}.')
    width = 0.8 / len(roles)
    with chart.axis(height=1.0 + 0.17 * len(rows) * (len(roles) + 0.6)) as axis:
        for index, role in enumerate(roles):
            places = [at - 0.4 + (index + 0.5) * width for at in range(len(rows))]
            values = [row.get(role) or 0 for row in rows.values()]
            axis.barh(places, values, width * 0.92, color=COLOURS[role], label=role)
            if spread:
                axis.errorbar(values, places, xerr=spread[role], fmt='none', ecolor=TEXT, lw=1, capsize=2)
        for at in range(1, len(rows)):
            axis.axhline(at - 0.5, color=TEXT, lw=0.5, alpha=0.2)
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set_ylim(len(rows) - 0.45, -0.55)
        axis.set_xlabel(unit)
        axis.grid(False, axis='y')
        if len(roles) > 1:
            axis.figure.legend(loc='outside lower center', ncols=3)
    return chart


def heat(name: str, title: str, found: Mapping[str, Any]) -> Chart:
    """A heat map of CKA: layers of the student by those of the teacher."""
    student, teacher, values = found['student'], found['teacher'], found['cka']
    best = [max(range(len(row)), key=row.__getitem__) for row in values]
    words = '; '.join(
        f'{layer} is most like {teacher[at]} of the teacher, {row[at]:.2f}'
        for layer, row, at in zip(student, values, best)
    )
    chart = Chart(name, title, f'CKA, {title}: {words}.')
    with chart.axis(4.4, 1.0 + 0.3 * len(student)) as axis:
        axis.grid(False)
        mesh = axis.pcolormesh(values, cmap='viridis', vmin=0, vmax=1, edgecolors='face', linewidth=0.2)
        mesh.set_rasterized(False)
        size = min(8, 80 / max(len(teacher), 1))
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                colour = '#000000' if value > 0.55 else '#ffffff'
                text = f'{value:.2f}'.lstrip('0') or '0'
                axis.text(column + 0.5, row + 0.5, text, color=colour, ha='center', va='center', fontsize=size)
        axis.set_yticks([i + 0.5 for i in range(len(student))], student)
        axis.set_xticks([i + 0.5 for i in range(len(teacher))], teacher, rotation=50, ha='right')
        axis.tick_params(length=0, labelsize=8)
        axis.set_xlabel('teacher')
        axis.set_ylabel('student')
        axis.invert_yaxis()
        for spine in axis.spines.values():
            spine.set_visible(False)
    return chart
