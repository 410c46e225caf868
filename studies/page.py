"""The page of evidence, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from kd_ext.report.statistics import paired
from studies.gate import OPEN as GATE_OPEN
from studies.gate import PASSED, judge
from studies.results import Results

NOT_RUN, HELD_BACK = 'not run', 'held back'
INTRO = """# Does distillation help?

This page is generated: `python -m studies.report` makes it from the figures in `results/studies`, which
`python -m studies.run SETTING` writes. [studies/README.md](../studies/README.md) says how to run, resume and add.

**How it is measured.** A setting is declared in a file before it runs. The student of a seed has the same initial
weights and the same order of data in every arm, so arms are compared seed by seed with the student alone. The last
checkpoint is scored on the test split, never the best one. Every method gets the same weight search: it takes
each of the declared shares of the loss on seeds and on a split that are not reported, and the best mean is chosen.
A setting has to pass a gate before figures of our methods are shown: it must be able to tell methods apart.

**Words.** *helps*: the 95% interval of the paired difference (Student's t) lies above 0; *harms*: below 0;
*not resolved*: neither. Beside it stands the smallest gain that the seeds could have shown with a power of 0.8,
(t(0.975) + t(0.8)) s / sqrt(n) with n - 1 degrees of freedom. Points are percentage points of the metric.
"""


def page(found: Sequence[Results], folder: str) -> str:
    """The whole page.

    Args:
        found (Sequence[Results]): Of all settings.
        folder (str): Of the figures, beside the page.
    """
    gates = [judge(results) for results in found]
    parts = [INTRO, _overview(found, gates)]
    parts += [_section(results, gate, folder) for results, gate in zip(found, gates)]
    return '\n'.join(parts)


def visible(results: Results) -> list[str]:
    """Arms whose figures may be shown: ours only where the gate has passed."""
    passed = judge(results).verdict == PASSED
    return [name for name, arm in results.setting.arms.items() if passed or arm.role != 'ours']


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def _overview(found, gates):
    titles = {}
    for results in found:
        titles.update({name: arm.title for name, arm in results.setting.arms.items() if arm.distils})
    rows = [['gate', *(_gate_word(results, gate) for results, gate in zip(found, gates))]]
    rows += [[title, *(_word(results, name) for results in found)] for name, title in titles.items()]
    return '## Verdicts\n\n' + _table(['', *(results.setting.title for results in found)], rows)


def _gate_word(results, gate):
    if results.setting.waits:
        return 'cannot run yet'
    return gate.verdict if results.teacher else NOT_RUN


def _word(results, name):
    if name not in results.setting.arms:
        return ''
    if name not in visible(results):
        return HELD_BACK if results.of(name) else NOT_RUN
    if results.complete(name) is None or results.complete(results.baseline) is None:
        count = len(results.differences(name))
        return f'{count} of {len(results.setting.seeds)} seeds' if count else NOT_RUN
    return f'{_paired(results, name).verdict} ({_paired(results, name).mean:+.1f})'


def _paired(results, name):
    differences = results.differences(name)
    return paired(differences) if len(differences) > 1 else None


def _section(results, gate, folder):
    setting = results.setting
    parts = [f'## {setting.title}\n', f'{setting.text}\n']
    if setting.waits:
        return '\n'.join([*parts, f'It cannot run yet. {setting.waits}\n'])
    if results.teacher is None:
        return '\n'.join([*parts, f'It was not run: `python -m studies.run {setting.name}`.\n'])
    if results.outdated:
        parts.append(
            'The declaration has changed since these figures were written; '
            f'`python -m studies.run {setting.name}` runs what is missing.\n'
        )
    parts += [_gate(results, gate), _figures(results), _against(results), _defaults(results), _searches(results)]
    parts.append(_cost(results))
    if any(results.of(name) for name in setting.arms):
        parts.append(f'![validations of each arm on the tuning split, mean over seeds]({folder}/{setting.name}.png)\n')
    parts.append(_surroundings(results))
    return '\n'.join(filter(None, parts))


def _gate(results, gate):
    words = {True: 'holds', False: 'does not hold', None: 'not known yet'}
    lines = [f'The gate: **{gate.verdict}**.', '']
    lines += [f'* {one.text}: {words[one.holds]}' for one in gate.conditions]
    hidden = [name for name in results.setting.arms if name not in visible(results) and results.of(name)]
    if hidden:
        titles = ', '.join(results.setting.arms[name].title for name in hidden)
        why = 'is not computed yet' if gate.verdict == GATE_OPEN else 'failed'
        lines += ['', f'Figures of {titles} are held back, as the gate {why}.']
    return '\n'.join(lines) + '\n'


def _figures(results):
    seeds = results.setting.seeds
    teacher = results.teacher['metric']
    alone = results.metric(results.baseline)
    rows = [['teacher', *[''] * len(seeds), f'{teacher:.1f}', '', '', '', '', '']]
    for name, arm in results.setting.arms.items():
        if name not in visible(results):
            word = HELD_BACK if results.of(name) else NOT_RUN
            rows.append([arm.title, *[''] * len(seeds), word, '', '', '', '', ''])
            continue
        values = results.metric(name)
        row = [arm.title, *(f'{values[seed]:.1f}' if seed in values else '-' for seed in seeds)]
        if not values:
            rows.append([*row, NOT_RUN, '', '', '', '', ''])
            continue
        row.append(f'{statistics.fmean(values.values()):.1f}')
        compared = _paired(results, name) if name != results.baseline else None
        if compared is None:
            rows.append([*row, '', '', '', '', _shares(results, name)])
            continue
        both = sorted(set(values) & set(alone))
        gap = teacher - statistics.fmean(alone[seed] for seed in both)
        whole = compared.count == len(seeds)
        row += [
            f'{compared.mean:+.1f} [{compared.low:+.1f}, {compared.high:+.1f}]',
            f'{compared.smallest:.1f}',
            f'{100 * compared.mean / gap:.0f}%' if gap > 0 else '',
            compared.verdict if whole else f'{compared.count} of {len(seeds)} seeds',
            _shares(results, name),
        ]
        rows.append(row)
    head = ['', *(f'seed {seed}' for seed in seeds), 'mean', 'minus alone, 95%', 'smallest gain to be seen']
    return f'`{results.setting.metric}` on the test split, in points:\n\n' + _table(
        [*head, 'gap closed', 'verdict', 'share of the loss at the end'], rows
    )


def _against(results):
    """Arms minus the one that has the teacher's labels and no distillation."""
    if results.setting.unlabelled is None:
        return ''
    control, rows = results.setting.unlabelled.control, []
    for name in visible(results):
        differences = results.differences(name, control)
        if name in (control, results.baseline) or len(differences) < 2:
            continue
        one = paired(differences)
        whole = one.count == len(results.setting.seeds)
        word = one.verdict if whole else f'{one.count} of {len(results.setting.seeds)} seeds'
        rows.append([results.setting.arms[name].title, f'{one.mean:+.1f} [{one.low:+.1f}, {one.high:+.1f}]', word])
    if not rows:
        return ''
    title = results.setting.arms[control].title
    return f'Against {title}:\n\n' + _table(['', 'difference, 95%', 'verdict'], rows)


def _shares(results, name):
    cells = results.of(name)
    terms = cells[0]['shares']
    return ' + '.join(f'{statistics.fmean(one["shares"][term] for one in cells):.2f} {term}' for term in terms)


def _defaults(results):
    rows = []
    for name in visible(results):
        arm = results.setting.arms[name]
        ours, tuned = _paired(results, name), arm.default_of and _paired(results, arm.default_of)
        if not arm.default_of or ours is None or tuned is None:
            continue
        part = f'{100 * ours.mean / tuned.mean:.0f}%' if tuned.low > 0 else 'the tuned weight has no gain to compare'
        rows.append([arm.title, f'{ours.mean:+.1f}', f'{tuned.mean:+.1f}', part])
    if not rows:
        return ''
    head = ['', 'gain over alone', 'gain with the searched weight', 'part of it']
    return 'Weights that the training chooses by itself, beside the searched ones:\n\n' + _table(head, rows)


def _searches(results):
    rows = []
    for name in visible(results):
        if not results.setting.arms[name].searched:
            continue
        found = results.searched(name)
        for one in found['tries']:
            if not one['seeds']:
                continue
            mine = dict(variant=one['variant'], share=one['share'])
            rows.append(
                [
                    results.setting.arms[name].title,
                    f'{one["variant"]} {one["share"]}'.strip(),
                    ', '.join(f'{value:.1f}' for value in one['seeds'].values()),
                    '' if one['mean'] is None else f'{one["mean"]:.1f}',
                    'chosen' if found['chosen'] == mine else '',
                ]
            )
    if not rows:
        return ''
    return 'The weight search, on the tuning split:\n\n' + _table(['', 'share', 'each seed', 'mean', ''], rows)


def _cost(results):
    alone = results.of(results.baseline)
    rows = []
    for name in visible(results):
        cells = results.of(name)
        if not cells:
            continue
        seconds = statistics.fmean(one['seconds'] for one in cells)
        step = statistics.fmean(one['seconds_per_step'] for one in cells)
        row = [results.setting.arms[name].title, f'{seconds:.0f}', f'{step:.3f}']
        if alone:
            base = statistics.fmean(one['seconds'] for one in alone)
            base_step = statistics.fmean(one['seconds_per_step'] for one in alone)
            row += [f'{seconds / base:.2f}', f'{step / base_step:.2f}']
        rows.append(row)
    if not rows:
        return ''
    head = ['', 's per training', 's per step', *(['training over alone', 'step over alone'] if alone else [])]
    return 'What it cost, validations included in the training, means over seeds:\n\n' + _table(head, rows)


def _surroundings(results):
    cells = [results.teacher, *results.cells]
    commits = sorted({one['commit'] for one in cells})
    versions = sorted({', '.join(f'{k} {v}' for k, v in one['versions'].items()) for one in cells})
    hardware = sorted({_machine(one['hardware']) for one in cells})
    text = (
        f'Commits: {", ".join(commits)}. Versions: {"; or ".join(versions)}. Run on: {"; and on ".join(hardware)}.\n'
    )
    if len(versions) > 1 or len(hardware) > 1:
        text += '\nThe cells do not all come from the same versions and machine: compare costs with care.\n'
    return text


def _machine(hardware):
    return hardware['gpu'] or f'{hardware["cpu"]}, {hardware["cores"]} cores, {hardware["threads"]} thread a training'
