"""A table of which student features learn from which teacher features, for the log and tools/check.py."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Iterator, NamedTuple

from kd_ext.build.probe import PROBE_SIZE

if TYPE_CHECKING:
    from rich.table import Table

    from kd_ext.terms.term import Term

COLUMNS = ('entry', 'student', 'shape', 'stride', 'teacher', 'shape', 'stride', 'connector', 'added')


class Side(NamedTuple):
    """One model's feature in a match."""

    where: str  # neck[0], or embedding of dense regions
    shape: tuple[int, ...]  # without the axis of images or regions
    stride: int | None = None  # of maps alone

    def __str__(self) -> str:
        stride = '' if self.stride is None else f' stride {self.stride}'
        return f'{self.where} ({", ".join(map(str, self.shape))}){stride}'

    def cells(self, of: str = '') -> tuple[str, str, str]:
        """The columns of one side: ``neck[0]``, ``256x40x40`` and ``8``."""
        return self.where + (of and f' of {of}'), 'x'.join(map(str, self.shape)), str(self.stride or '-')


class Match(NamedTuple):
    """A student feature and the teacher feature that it is compared with."""

    entry: str  # key in distill
    student: Side
    teacher: Side
    connector: str = ''  # in words
    parameters: int = 0  # of the connector
    note: str = ''  # of the loss, see DistillationLoss.note
    of: str = ''  # the teacher's name, if there are several

    def __str__(self) -> str:
        how = f', {self.connector}' if self.connector else ''
        how += f' ({self.parameters:,} parameters)' if self.parameters else ''
        how += f', {self.note}' if self.note else ''
        return f'{self.entry}: {self.student} <- {self.teacher}{how}' + (self.of and f' of {self.of}')


class Matches:
    """All matches of a distillation, and notes; iterating gives a line each."""

    def __init__(self) -> None:
        self.rows: list[Match] = []  # in the order of the entries
        self.notes: list[str] = []  # lines beneath the table
        self.added = 0  # parameters that are used in training alone

    def add(self, term: Term, of: str = '') -> None:
        """Adds the matches and notes of a term; ``of`` is its teacher if there are several."""
        left = sum(p.numel() for p in term.parameters())
        for item in term.describe():
            if isinstance(item, Match):
                self.rows.append(item._replace(of=of))
                left -= item.parameters
            else:
                self.notes.append(f'{item} of {of}' if of else item)
        if left:
            self.notes.append(f'{term.name}: {left:,} parameters in {type(term.loss).__name__}')

    def __iter__(self) -> Iterator[str]:
        yield from map(str, self.rows)
        yield from self.notes

    def table(self) -> Table:
        """A rich table of the matches, which folds long cells on a narrow terminal."""
        from rich.table import Table

        noted = any(row.note for row in self.rows)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in (*COLUMNS, *['loss'] * noted):
            table.add_column(name, overflow='fold')  # instead of cutting cells off
        for row in self.rows:
            cells = (*row.student.cells(), *row.teacher.cells(row.of), row.connector or 'none', f'{row.parameters:,}')
            table.add_row(row.entry, *cells, *[row.note] * noted)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        # wide enough for any row: a log must not wrap
        page = io.StringIO()
        Console(file=page, width=1000, color_system=None).print(self.table())
        return '\n'.join([*(line.rstrip() for line in page.getvalue().splitlines()), *self.remarks()])

    def remarks(self) -> list[str]:
        """Lines beneath the table: the notes, and the total of added parameters."""
        added = f'{self.added:,} added parameters, in training alone'
        if any(row.note for row in self.rows):
            added += f'; shapes and patches of an image of {PROBE_SIZE} x {PROBE_SIZE}, larger images have larger ones'
        return [*self.notes, added]
