"""What learns from what: for people, in the log and in tools/check.py."""

import io
from typing import NamedTuple, Optional, Tuple


class Side(NamedTuple):
    """What one model brings to a match.

    Attributes:
        where: ``neck[0]``, or ``embedding of dense regions``.
        shape: Of the probed feature, without the axis of images or regions.
        stride: Of a map.
    """

    where: str
    shape: Tuple[int, ...]
    stride: Optional[int] = None

    @property
    def size(self):
        """``256x40x40``"""
        return 'x'.join(map(str, self.shape))

    def __str__(self):
        stride = '' if self.stride is None else f' stride {self.stride}'
        shape = ', '.join(map(str, self.shape))
        return f'{self.where} ({shape}){stride}'


class Match(NamedTuple):
    """A feature of the student and what it is compared with.

    Attributes:
        entry: Key in ``distill``.
        student, teacher: Both sides.
        connector: What brings the student's to the teacher's, in words.
        parameters: That the connector adds.
        of: Name of the teacher, where there are several.
    """

    entry: str
    student: Side
    teacher: Side
    connector: str = ''
    parameters: int = 0
    of: str = ''

    def __str__(self):
        how = f', {self.connector}' if self.connector else ''
        if self.parameters:
            how += f' ({self.parameters:,} parameters)'
        of = f' of {self.of}' if self.of else ''
        return f'{self.entry}: {self.student} <- {self.teacher}{how}{of}'


class Matches:
    """All matches of a distillation, and notes on what has none.

    Iterating gives a line each.

    Attributes:
        rows (list[Match]): In the order of the entries.
        notes (list[str]): Said beneath the table.
        added (int): Parameters that are used in training alone.
    """

    def __init__(self):
        self.rows, self.notes, self.added = [], [], 0

    def add(self, term, shapes, of=''):
        """Takes what a term describes, matches and notes, of a teacher."""
        left = sum(p.numel() for p in term.parameters())
        for item in term.describe(*shapes):
            if isinstance(item, Match):
                self.rows.append(item._replace(of=of))
                left -= item.parameters
            else:
                self.notes.append(f'{item} of {of}' if of else item)
        if left:
            self.notes.append(f'{term.name}: {left:,} parameters in {type(term.loss).__name__}')

    def __iter__(self):
        yield from map(str, self.rows)
        yield from self.notes

    def table(self):
        """The rows as a table of rich: 80 columns where names are short."""
        from rich.table import Table

        table = Table(
            'entry',
            'student',
            'shape',
            'stride',
            'teacher',
            'shape',
            'stride',
            'connector',
            'added',
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for row in self.rows:
            sides = [
                (side.where + of, side.size, str(side.stride or '-'))
                for side, of in ((row.student, ''), (row.teacher, f' of {row.of}' if row.of else ''))
            ]
            table.add_row(row.entry, *sides[0], *sides[1], row.connector or 'none', f'{row.parameters:,}')
        return table

    def __str__(self):
        from rich.console import Console

        # as wide as it gets: a log wraps nothing
        console = Console(file=io.StringIO(), width=1000, color_system=None)
        console.print(self.table())
        rows = [line.rstrip() for line in console.file.getvalue().splitlines()]
        return '\n'.join([*rows, *self.notes, f'{self.added:,} added parameters, in training alone'])
