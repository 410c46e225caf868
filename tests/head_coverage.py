"""Which method works with which head: one real step decides, cell by cell.

    python tests/head_coverage.py

writes docs/coverage.json and the README's table.
"""

import json

import tiny
import torch
import zoo
from mmengine import MessageHub

RECORD = tiny.ROOT / 'docs' / 'coverage.json'
README = tiny.ROOT / 'README.md'
MARKS = '<!-- coverage: begin -->', '<!-- coverage: end -->'
YES, BY_MEANS = 'yes', 'yes, norms of class means'
NO_PLACES = 'no: teacher and student have no regions in common'
ONE_STAGE = 'no: its backbone puts out one stage, and the loss relates two'
METHODS = {
    'RCKA': dict(type='kd_ext.RCKALoss', at='neck', patch_size=2),
    'ND': dict(type='kd_ext.NDLoss', at='embedding'),
    'NCKD': dict(type='kd_ext.NCKDLoss', at='embedding'),
    'KL on logits': dict(type='kd_ext.LogitKLLoss', at='logits'),
    'ReviewKD': dict(type='kd_ext.ReviewKDLoss', at='neck', mid_channels=8),
    'Lipschitz': dict(type='kd_ext.LipschitzLoss', at='backbone'),
}


def outcome(head, method):
    """What one training step shows: ``'yes'`` or the reason against it.

    Raises:
        AssertionError: It runs, but teaches nothing or leaves a parameter
            without gradient that the student alone would give one.
    """
    MessageHub.get_current_instance().update_info('epoch', 9)
    try:
        model = tiny.distill(zoo.detector(head), zoo.detector(head, 8),
                             term=METHODS[method])
    except ValueError as error:
        return _reason(str(error))
    model.train()
    terms = {}
    for _ in range(2):  # the first batch may be where the means begin
        model.zero_grad()
        losses = tiny.losses(model, zoo.batch(head))
        terms = {key: value for key, value in losses.items()
                 if key.startswith('distill.loss_')}
        assert all(bool(torch.isfinite(v)) for v in terms.values()), terms
        sum(terms.values()).backward(retain_graph=True)
        taught = sum(p.grad.abs().sum() for p in model.student.parameters()
                     if p.grad is not None)
        assert float(taught) > 0, terms
        own = [p.grad is not None
               for p in model.distiller.parameters() if p.requires_grad]
        assert all(own)
        # two passes of one graph: the total is what the optimizer sees
        total, _ = model.parse_losses(losses)
        total.backward()
    idle = {name for name, p in model.student.named_parameters()
            if p.grad is None}
    assert idle <= unused_alone(head), idle
    heads = {term: getattr(term, 'needs_teacher', True)
             for term in model.distiller.terms.values()}
    return YES if all(heads.values()) or method == 'NCKD' else BY_MEANS


def unused_alone(head):
    """Parameters that get no gradient in the student's own training."""
    student = tiny.build(zoo.detector(head)).train()
    data = student.data_preprocessor(zoo.batch(head), True)
    student.parse_losses(student(**data, mode='loss'))[0].backward()
    return {name for name, p in student.named_parameters() if p.grad is None}


def _reason(text):
    if 'regions in common' in text:
        return NO_PLACES
    if 'paired by stride' in text:
        return ONE_STAGE
    return f'no: {text}'


def run():
    """All cells: dict[head, dict[method, outcome]]."""
    return {head: {method: outcome(head, method) for method in METHODS}
            for head in zoo.CONFIGS}


def table(cells):
    """The README's table in Markdown."""
    notes = []
    lines = ['| detector | ' + ' | '.join(METHODS) + ' |',
             '|---' * (len(METHODS) + 1) + '|']
    for head, row in cells.items():
        marks = []
        for method in METHODS:
            cell = row[method]
            if cell == YES:
                marks.append('yes')
                continue
            if cell not in notes:
                notes.append(cell)
            marks.append(f'{cell.partition(":")[0].partition(",")[0]} '
                         f'({notes.index(cell) + 1})')
        lines.append(f'| {head} | ' + ' | '.join(marks) + ' |')
    lines.append('')
    for index, note in enumerate(notes):
        text = note.partition(': ')[2] or note.partition(', ')[2]
        lines.append(f'({index + 1}) {text}.  ')
    return '\n'.join(lines).rstrip()


def recorded():
    """The cells that the repository claims."""
    return json.loads(RECORD.read_text())


def readme_table():
    """What stands between the marks in the README."""
    text = README.read_text()
    return text.partition(MARKS[0])[2].partition(MARKS[1])[0].strip()


def main():
    cells = run()
    RECORD.write_text(json.dumps(cells, indent=1) + '\n')
    text = README.read_text()
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    README.write_text(f'{before}{MARKS[0]}\n{table(cells)}\n{MARKS[1]}{after}')


if __name__ == '__main__':
    main()
