"""Which method works with which head: one real step decides, cell by cell.

    python -m tests.helpers.coverage_table [DETECTOR or METHOD ...]

writes docs/coverage.json and the table of docs/coverage.md. The columns are the entries of ``configs/_base_/distill``.
With arguments only these rows or columns are tried; all other cells stay as they are recorded.
"""

from __future__ import annotations

import functools
import json
import re
import sys

import torch
from mmengine import MessageHub
from torch.nn.modules.batchnorm import _BatchNorm

from kd_ext.recipes import COMBINATIONS, distill_entries
from kd_ext.recipes import METHODS as NAMES
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny

RECORD = tiny.ROOT / 'docs' / 'coverage.json'
PAGE = tiny.ROOT / 'docs' / 'coverage.md'
MARKS = '<!-- coverage: begin -->', '<!-- coverage: end -->'
YES, BY_MEANS = 'yes', 'yes, norms of class means'
NO_PLACES = 'no: teacher and student have no regions in common'
ONE_STAGE = 'no: its backbone puts out one stage, and the loss relates two'
NO_NECK = "no: it has no neck; at='backbone' works"
# settings that fit the zoo's small maps
SMALL = dict(rcka=dict(patch_size=2), reviewkd=dict(mid_channels=8))
METHODS = {
    name: dict(distill_entries([name])[name], **SMALL.get(name, {})) for name in NAMES if name not in COMBINATIONS
}
# LD trains under a GFL of its own
TEACHERS = {'LD': 'GFL'}
# untrained ones put out zeros nearly
FADING = ('RTMDet-Ins',)


def outcome(head: str, method: str) -> str:
    """What one training step shows: ``'yes'`` or the reason against it.

    Raises:
        AssertionError: It runs, but teaches nothing or leaves a parameter
            without gradient that the student alone would give one.
    """
    MessageHub.get_current_instance().update_info('epoch', 9)
    try:
        model = tiny.distill(zoo.detector(head), zoo.detector(TEACHERS.get(head, head), 8), term=METHODS[method])
    except ValueError as error:
        return _reason(str(error))
    if head in FADING:
        settle(model.teacher, head)
    model.train()
    terms = {}
    # the first batch may be where the means begin
    for _ in range(1 + bool(model.distiller.class_means)):
        model.zero_grad()
        losses = tiny.losses(model, zoo.batch(head))
        terms = {key: value for key, value in losses.items() if key.startswith('distill.loss_')}
        assert all(bool(torch.isfinite(v)) for v in terms.values()), terms
        sum(terms.values()).backward(retain_graph=True)
        taught = sum(p.grad.abs().sum() for p in model.student.parameters() if p.grad is not None)
        assert float(taught) > 0, terms
        own = [p.grad is not None for p in model.distiller.parameters() if p.requires_grad]
        assert all(own)
        # two passes of one graph: the total is what the optimizer sees
        total, _ = model.parse_losses(losses)
        total.backward()
    idle = {name for name, p in model.student.named_parameters() if p.grad is None}
    assert idle <= unused_alone(head), idle
    if head in TEACHERS:
        return f'yes, with {TEACHERS[head]} for a teacher'
    (term,) = model.distiller.terms.values()
    return YES if term.needs_teacher or term.traits.teacher is None else BY_MEANS


def settle(teacher, head):
    """Statistics of norm layers from a batch, as after training."""
    data = teacher.data_preprocessor(zoo.batch(head), True)
    norms = [module for module in teacher.eval().modules() if isinstance(module, _BatchNorm)]
    for module in norms:
        module.momentum = 1.0
        module.train()
    with torch.no_grad():
        teacher(**data, mode='tensor')
    teacher.eval()


@functools.lru_cache(None)
def unused_alone(head):
    """Parameters that get no gradient in the student's own training."""
    student = tiny.build(zoo.detector(head))
    student.train()  # which returns nothing in LD
    data = student.data_preprocessor(zoo.batch(head), True)
    student.parse_losses(student(**data, mode='loss'))[0].backward()
    return {name for name, p in student.named_parameters() if p.grad is None}


def _reason(text):
    if 'regions in common' in text:
        return NO_PLACES
    if 'paired by stride' in text:
        return ONE_STAGE
    if "Expected at='neck' to be a part" in text:
        return NO_NECK
    refused = re.search(r', where (.+?)\. Taps at=', text)
    return f'no: {refused[1] if refused else text}'


def table(cells: dict[str, dict[str, str]]) -> str:
    """The page's table in Markdown."""
    notes: list[str] = []
    lines = ['| detector | ' + ' | '.join(METHODS) + ' |', '|---' * (len(METHODS) + 1) + '|']
    for head, row in cells.items():
        marks = []
        for method in METHODS:
            cell = row[method]
            if cell == YES:
                marks.append('yes')
                continue
            if cell not in notes:
                notes.append(cell)
            marks.append(f'{cell.partition(":")[0].partition(",")[0]} ({notes.index(cell) + 1})')
        lines.append(f'| {head} | ' + ' | '.join(marks) + ' |')
    lines.append('')
    for index, note in enumerate(notes):
        text = note.partition(': ')[2] or note.partition(', ')[2]
        lines.append(f'({index + 1}) {text}.  ')
    return '\n'.join(lines).rstrip()


def recorded() -> dict[str, dict[str, str]]:
    """The cells that the repository claims."""
    return json.loads(RECORD.read_text())


def page_table() -> str:
    """What stands between the marks of the page."""
    text = PAGE.read_text()
    return text.partition(MARKS[0])[2].partition(MARKS[1])[0].strip()


def main(names: list[str]) -> None:
    heads = [name for name in names if name in zoo.ALL]
    methods = [name for name in names if name in METHODS]
    if {*names} - {*heads, *methods}:
        raise SystemExit(f'no detector or method: {", ".join({*names} - {*heads, *methods})}')
    cells = {head: dict(recorded().get(head, {})) for head in zoo.ALL}
    for head in heads or zoo.ALL:
        for method in methods or METHODS:
            cells[head][method] = outcome(head, method)
    cells = {head: {method: row[method] for method in METHODS if method in row} for head, row in cells.items()}
    RECORD.write_text(json.dumps(cells, indent=1) + '\n')
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(f'{before}{MARKS[0]}\n{table(cells)}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}')


if __name__ == '__main__':
    main(sys.argv[1:])
