"""Makes the page of what was gathered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from kd_ext.report import charts
from kd_ext.report.charts import Chart, role_of
from kd_ext.report.verdict import points

HERE = Path(__file__).parent
MARKS = dict(good='✓', bad='!', open='?', plain='·')
MOST_CLASSES = 24
ROLES = ('teacher', 'alone', 'distilled')
NC = dict(nc1='NC1, spread', nc2='NC2, angles', nc3='NC3, classifier')


def page(content: dict[str, Any], pictures: dict[str, Any] | None) -> str:
    """The HTML of ``content`` (:mod:`kd_ext.report.gather`) and :func:`kd_ext.report.pictures.pictures`."""
    drawn = _charts(content)
    method = ' + '.join(content['method']) or 'no distillation'
    data = content.get('data')
    subtitle = f'{len(content["runs"])} run{"s" * (len(content["runs"]) != 1)}'
    subtitle += f', measured on {data["images"]} images of {len(content["classes"])} classes' if data else ''
    sections = [
        ('matches', 'What learned from what', content.get('matches')),
        ('curves', 'During training', drawn['curves']),
        ('precision', 'Classes and sizes', content.get('precision')),
        ('errors', 'Errors', content.get('errors')),
        ('images', 'Images', pictures),
        ('inside', 'Inside the models', drawn['cka'] or drawn['collapse'] or drawn['spectra']),
        ('cost', 'Cost', True),
        ('origin', 'Origin', True),
    ]
    compared = content.get('differences')
    groups: dict[str, Any] = dict(total=('mAP', 'AP50', 'AP75'))
    if content.get('precision'):
        first = next(iter(content['precision'].values()))
        groups.update(sizes=first['sizes'], classes=first['classes'])
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template('page.html.j2').render(
        c=content,
        title=f'Distillation of {content["student"]} by {method}',
        subtitle=f'{subtitle}.',
        css=(HERE / 'page.css').read_text(),
        colours=charts.COLOURS,
        marks=MARKS,
        role_of=role_of,
        numbers=_numbers(content, compared),
        sections=[(key, name) for key, name, there in sections if there],
        charts=drawn,
        pictures=pictures,
        rows=[(group, name) for group, names in groups.items() for name in names],
        memory=any(one['memory'] for one in content['costs'].values()),
        ratio=_ratio(content['costs']),
    )


def _numbers(content: dict[str, Any], compared: dict[str, Any] | None) -> list[dict[str, str]]:
    found = {}
    for role in ROLES:
        value = _mean(content, role, lambda one: one['mAP'])
        if value is not None:
            found[role] = dict(name=role, role=role, value=points(value), unit='mAP')
    if compared and compared['total']['mAP']:
        one, seeds = compared['total']['mAP'], len(compared['seeds'])
        unit = f'[{one["low"]:+.1f}, {one["high"]:+.1f}], {seeds} seeds' if 'low' in one else 'one pair, no interval'
        found['gain'] = dict(name='difference', role='', value=points(one['mean'], True), unit=unit)
    ratio = _ratio(content['costs'])
    if ratio:
        found['cost'] = dict(name='cost of a step', role='', value=f'{ratio:.2f}×', unit='of the student alone')
    return list(found.values())


def _mean(content: dict[str, Any], role: str, of: Any) -> float | None:
    """Mean of a figure over the runs of a role."""
    values = [of(one) for name, one in content.get('precision', {}).items() if role_of(name) == role]
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def _ratio(costs: dict[str, Any]) -> float | None:
    times = {}
    for role in ('distilled', 'alone'):
        known = [one['time'] for name, one in costs.items() if role_of(name) == role and one['time']]
        if not known:
            return None
        times[role] = sum(known) / len(known)
    return times['distilled'] / times['alone']


def _charts(content: dict[str, Any]) -> dict[str, Any]:
    precision = content.get('precision') or {}
    roles = [role for role in ROLES if role in set(map(role_of, precision))]

    def by_role(of: Any) -> dict[str, float | None]:
        return {role: _mean(content, role, of) for role in roles}

    first: dict[str, Any] = next(iter(precision.values()), dict(classes={}, sizes={}))
    classes = {name: by_role(lambda one, name=name: one['classes'][name]) for name in first['classes']}
    title = 'AP by class'
    if len(classes) > MOST_CLASSES:
        order = sorted(classes, key=lambda name: -abs((_difference(classes[name])) or 0))[:MOST_CLASSES]
        classes = {name: classes[name] for name in order}
        title = f'AP of the {MOST_CLASSES} classes that changed most'
    else:
        classes = dict(sorted(classes.items(), key=lambda item: -(_difference(item[1]) or 0)))
    sizes = {name: by_role(lambda one, name=name: one['sizes'][name]) for name in first['sizes']}
    sizes = {name: row for name, row in sizes.items() if any(value is not None for value in row.values())}
    errors = content.get('errors') or {}
    kinds = list(next(iter(errors.values()), {}))
    costs = {
        kind: {
            role: sum(one[kind]['cost'] for name, one in errors.items() if role_of(name) == role)
            / max(sum(role_of(name) == role for name in errors), 1)
            for role in roles
        }
        for kind in kinds
    }
    found = content.get('cka') or {}
    titles = dict(before='before training', alone='the student alone, trained', distilled='after distillation')
    return dict(
        curves=_curves(content['curves']),
        classes=charts.dots('classes', title, classes, 'AP'),
        sizes=charts.dots('sizes', 'AP by size', sizes, 'AP'),
        errors=charts.bars('errors', 'What each kind of error costs', costs, 'points of AP50'),
        cka=[charts.heat(f'cka-{role}', titles[role], found[role]) for role in titles if role in found],
        collapse=_collapse(content.get('collapse') or {}),
        spectra=_spectra(content.get('spectra') or {}),
    )


def _difference(row: dict[str, float | None]) -> float | None:
    new, old = row.get('distilled', row.get('teacher')), row.get('alone')
    return None if new is None or old is None else new - old


def _curves(curves: dict[str, Any]) -> list[Chart]:
    own = {name: one for name, one in curves.items() if one['terms']}
    terms = list(dict.fromkeys(term for one in own.values() for term in one['terms']))
    metric = next((one['metric'] for one in curves.values() if one['metric']), None)
    drawn = [
        charts.lines('task', 'Task loss', {name: one['task'] for name, one in curves.items()}, 'loss'),
        charts.lines('val', f'{_short(metric)} in validation', {name: one['val'] for name, one in curves.items()}),
    ]
    colours = dict(zip(terms, charts.TERMS * (1 + len(terms) // len(charts.TERMS))))
    main: dict[str, Any] = next(iter(own.values()), dict(terms={}))['terms']
    for kind, title in (('loss', 'Terms of the distillation'), ('share', 'Share of the loss'), ('factor', 'Factor')):
        known = {term: one[kind] for term, one in main.items()}
        drawn.append(charts.lines(kind, title, known, kind, colours))
    return [one for one in drawn if one]


def _short(metric: str | None) -> str:
    """``mAP`` of ``coco/bbox_mAP``."""
    return (metric or '').rpartition('/')[2].replace('bbox_', '')


def _collapse(found: dict[str, Any]) -> list[Chart]:
    rows = {key: {role: one[key] for role, one in found.items() if one.get(key) is not None} for key in NC if found}
    drawn = [charts.bars(key, NC[key], {'': row}, key.upper()) for key, row in rows.items() if row]
    return [one for one in drawn if one]


def _spectra(found: dict[str, Any]) -> Chart | None:
    if not found:
        return None
    strides = next(iter(found.values()))['strides']
    names = [f'{a} → {b}' for a, b in zip(strides, strides[1:])]
    order = [role for role in ROLES if role in found]
    rows = {name: {role: found[role]['mean'][at] for role in order} for at, name in enumerate(names)}
    spread = {role: found[role]['std'] for role in order}
    return charts.bars('spectra', 'Spectral norm between stages, by stride', rows, 'spectral norm', spread)
