"""What the figures say, in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from kd_ext.report.charts import role_of

MOVED = 0.1  # a term that fell by less of its first value hardly moved
RAN_AWAY, GREW = 0.5, 0.1  # a share above the one that grew by the other
FADED = 0.01
MARGIN = 1.0  # points that a teacher should be ahead


def verdict(content: dict[str, Any]) -> list[dict[str, str]]:
    """Sentences with a ``tone``: ``good``, ``bad``, ``open`` or ``plain``; the first one is the outcome."""
    return [
        dict(tone=tone, text=text)
        for tone, text in [*_outcome(content), *_teacher(content), *_terms(content), *_inside(content)]
    ]


def points(value: float, signed: bool = False) -> str:
    """``+1.2`` or ``1.2``."""
    return f'{value:+.1f}' if signed else f'{value:.1f}'


def _outcome(content: dict[str, Any]) -> list[tuple[str, str]]:
    compared = content.get('differences')
    if not compared or not compared['total']['mAP']:
        found = {role_of(name): one['mAP'] for name, one in content.get('precision', {}).items()}
        name = 'distilled' if 'distilled' in found else 'alone'
        if found.get(name) is None:
            return [('open', 'Nothing could be measured, so what distillation gained is not known.')]
        who = 'The distilled student' if name == 'distilled' else 'The student alone'
        return [('open', f'{who} reaches {points(found[name])} mAP. What was gained is not known from this alone.')]
    total, seeds = compared['total']['mAP'], len(compared['seeds'])
    text = f'{points(total["distilled"])} mAP against {points(total["alone"])} of the student alone'
    if 'low' in total:
        text += (
            f': {points(total["mean"], True)} on average over {seeds} seeds, 95% interval '
            f'{points(total["low"], True)} to {points(total["high"], True)}.'
        )
        word, tone = ('Gained', 'good') if total['low'] > 0 else ('Lost', 'bad') if total['high'] < 0 else ('', 'open')
        lines = [(tone, f'{word or "Not resolved"}: {text}')]
        if not word:
            lines.append(('open', 'The interval holds 0, so these seeds do not tell gain from loss; run more.'))
    else:
        word = 'higher' if total['mean'] > 0 else 'lower' if total['mean'] < 0 else 'the same'
        few = 'one seed gives' if seeds == 1 else 'runs without a common seed give'
        lines = [('open', f'Not resolved, but {word}: {text}, {points(total["mean"], True)}; {few} no interval.')]
    return lines + _where(compared)


def _where(compared: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for group, what in (('classes', 'class'), ('sizes', 'size')):
        known = sorted(((one['mean'], name) for name, one in compared[group].items() if one), reverse=True)
        if len(known) > 1:
            (most, top), (least, last) = known[0], known[-1]
            lines.append(
                (
                    'plain',
                    f'By {what}, {top} gained most ({points(most, True)}), {last} least ({points(least, True)}).',
                )
            )
    costs = sorted((one['mean'], kind) for kind, one in compared['errors'].items() if one)
    if costs:
        (less, kind), (more, other) = costs[0], costs[-1]
        text = f'Errors of the kind "{kind}" cost {points(-less)} points of AP50 less than alone' if less < 0 else ''
        worse = f'those of the kind "{other}" {points(more)} more' if more > 0.5 else ''
        both = '; '.join(filter(None, (text, worse)))
        if both:
            lines.append(('plain', f'{both[0].upper()}{both[1:]}.'))
    return lines


def _teacher(content: dict[str, Any]) -> list[tuple[str, str]]:
    found = content.get('precision', {})
    teacher = (found.get('teacher') or {}).get('mAP')
    means = {}
    for role in ('alone', 'distilled'):
        values = [one['mAP'] for name, one in found.items() if role_of(name) == role and one['mAP'] is not None]
        if values:
            means[role] = statistics.fmean(values)
    student = means.get('alone', means.get('distilled'))
    if teacher is None or student is None:
        return []
    ahead = teacher - student
    whose = 'the student alone' if 'alone' in means else 'its student'
    if ahead < MARGIN:
        return [
            (
                'bad',
                f'The teacher is no better than {whose}: {points(teacher)} against {points(student)} mAP. '
                'It has little to teach; take a better one.',
            )
        ]
    text = f'The teacher reaches {points(teacher)} mAP, {points(ahead)} more than {whose}'
    if len(means) == 2:
        text += f'; distillation closes {100 * (means["distilled"] - means["alone"]) / ahead:.0f}% of this gap'
    return [('plain', f'{text}.')]


def _terms(content: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    curves = [one for name, one in content.get('curves', {}).items() if role_of(name) == 'distilled']
    for term in dict.fromkeys(term for one in curves for term in one['terms']):
        own = [one['terms'][term] for one in curves if term in one['terms']]
        losses = [pair for one in own if (pair := _ends(_per_factor(one))) and pair[0] > 0]
        shares = [_ends(one['share'][1]) for one in own if one['share'][1]]
        if losses:
            fall = 1 - statistics.fmean(last / first for first, last in losses)
            if fall < MOVED:
                change = f'it fell by {100 * fall:.0f}%' if fall >= 0 else f'it rose by {-100 * fall:.0f}%'
                lines.append(
                    (
                        'bad',
                        f'The term {term} hardly moved: {change} from the first to the last tenth of the training.',
                    )
                )
            else:
                lines.append(('plain', f'The term {term} fell by {100 * fall:.0f}%.'))
        known = [pair for pair in shares if pair]
        if not known:
            continue
        first, last = (statistics.fmean(values) for values in zip(*known))
        where = f'from {100 * first:.0f}% of the loss at the start to {100 * last:.0f}% at the end'
        if last > RAN_AWAY and last > first + GREW:
            lines.append(('bad', f'The share of {term} ran away, {where}; lower its weight, or give it a schedule.'))
        elif last > RAN_AWAY:
            lines.append(
                (
                    'plain',
                    f'{term} is most of the loss: {100 * first:.0f}% at the start, {100 * last:.0f}% at the end.',
                )
            )
        elif last < FADED:
            lines.append(('bad', f'{term} is {100 * last:.1f}% of the loss at the end, so it taught next to nothing.'))
    return lines


def _per_factor(term: dict[str, Any]) -> list[float]:
    """Losses without the factor of a schedule; steps where it is 0 are left out."""
    (steps, losses), factors = term['loss'], dict(zip(*term['factor']))
    return [loss / factors.get(step, 1) for step, loss in zip(steps, losses) if factors.get(step, 1) > 0]


def _ends(values: Sequence[float]) -> tuple[float, float] | None:
    """Means of the first and the last tenth; None of fewer than two values."""
    tenth = max(len(values) // 10, 1)
    if len(values) < 2:
        return None
    return statistics.fmean(values[:tenth]), statistics.fmean(values[-tenth:])


def _inside(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Whether the layers that learned became more like the teacher's."""
    found = content.get('cka') or {}
    rows = (content.get('matches') or {}).get('rows') or []
    pairs = {(row[1], row[4]) for row in rows}
    means = {}
    for role, one in found.items():
        values = [
            one['cka'][one['student'].index(ours)][one['teacher'].index(theirs)]
            for ours, theirs in pairs
            if ours in one['student'] and theirs in one['teacher']
        ]
        if values:
            means[role] = statistics.fmean(values)
    if 'distilled' not in means or 'before' not in means:
        return []
    text = (
        f'The layers that learned are {"more" if means["distilled"] > means["before"] else "no more"} like the '
        f'teacher: CKA {means["before"]:.2f} before, {means["distilled"]:.2f} after'
    )
    return [('plain', text + (f', {means["alone"]:.2f} of the student alone.' if 'alone' in means else '.'))]
