"""A term on regions: embeddings or logits, with labels and class means."""

from __future__ import annotations

from logging import WARNING
from typing import Any, Iterator, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_ext.build.modules import naming
from kd_ext.connectors import Connector
from kd_ext.losses.precision import upcast
from kd_ext.losses.protocol import LossTraits
from kd_ext.taps import Reading
from kd_ext.taps.heads import Head
from kd_ext.teachers.class_map import ClassMap
from kd_ext.terms.entry import set_up
from kd_ext.terms.match_table import Match, Side
from kd_ext.terms.term import Settings, Term

FIELDS = dict(embedding='embeddings', logits='logits')
ELSEWHERE = "Use at='embedding' or at='neck' there."


class Heads(NamedTuple):
    """The heads of both models, and whether the teacher's can read the student's regions."""

    student: Head
    teacher: Head
    shared: bool

    def width(self, at: str) -> int:
        """Of what the student is compared with."""
        return self.teacher.width if at == 'embedding' else self.teacher.num_logits


class RegionTerm(Term):
    """Compares the same regions of both models with a loss.

    ``at`` is ``'embedding'`` or ``'logits'``, ``connector`` a projector instead of the automatic one. ``classes``
    map the logits.

    Raises:
        ValueError: The loss compares regions that the teacher cannot read, or logits of different kinds.
    """

    def __init__(
        self,
        name: str,
        key: str,
        loss: nn.Module,
        traits: LossTraits,
        heads: Heads,
        classes: ClassMap,
        settings: Settings,
    ) -> None:
        super().__init__(name, key, loss, traits)
        self.at = settings.at
        self.needs_teacher = traits.teacher is not None and heads.shared
        if traits.teacher is not None and not heads.shared:
            self._without_teacher(heads)
        student, width = heads.student, heads.width(self.at)
        own = student.width if self.at == 'embedding' else student.num_logits
        self.columns: tuple[list[int], list[int]] | None = None
        if self.at == 'logits':
            self._check_logits(heads)
            if not classes.same:
                self.columns = self._columns(student, classes)
                own = width = len(self.columns[0])
        place = f'distill.{name}'
        facts = dict(num_classes=student.num_classes, width=width, use_sigmoid=student.use_sigmoid)
        set_up(f'{place}.at', loss, traits, **facts)
        self.connector = Connector.between((1, own), (1, width), settings.connector, f'{place}.connector')
        how = self.connector.describe((1, own), (1, width))
        if traits.asks('class_means') and not self.needs_teacher:
            source = 'class means' if heads.shared else f'class means of {heads.teacher.family} regions'
        else:
            source = 'the same regions' if self.needs_teacher else 'labels'
        self.match = Match(name, Side(f'{self.at} of {student.family} regions', (own,)), Side(source, (width,)), *how)

    def _without_teacher(self, heads: Heads) -> None:
        text = ' and '.join(f'the {head.family} regions of {head.name}' for head in heads[:2])
        if not self.traits.asks('class_means'):
            remedy = "kd_ext.NCKDLoss and kd_ext.NDLoss work there; others at 'neck' and 'backbone' do."
            raise self.error('', 'read where teacher and student have regions in common', text, remedy)
        text += " have no places in common; the norms of the class means stand in for the teacher's"
        print_log(f'distill.{self.name}: {text}', 'current', WARNING)

    def _check_logits(self, heads: Heads) -> None:
        kinds = [(head.num_logits - head.num_classes, head.use_sigmoid) for head in heads[:2]]
        if kinds[0] != kinds[1]:
            text = []
            for head in heads[:2]:
                kind = 'sigmoid' if head.use_sigmoid else 'softmax'
                text.append(f'{head.num_logits} {kind} logits of {head.num_classes} classes')
            value = f'{text[0]} in the student and {text[1]} in the teacher'
            raise self.error('', 'read from logits of one kind', value, ELSEWHERE)
        other = heads.student.other_anchors(heads.teacher) if self.needs_teacher else ''
        if other:
            rule = 'read from logits of the same anchors in student and teacher'
            raise self.error('', rule, f'anchors that differ: {other}', ELSEWHERE)

    def _columns(self, student: Head, classes: ClassMap) -> tuple[list[int], list[int]]:
        if self.traits.asks('labels'):
            rule = 'of teacher and student with the same classes, as its loss takes logits and labels'
            raise self.error('', rule, classes.describe())
        return classes.columns(student.num_logits > student.num_classes)

    def describe(self) -> Iterator[Match | str]:
        yield self.match

    def _pair(self, student: Reading, teacher: Any) -> tuple[Tensor, Tensor | None]:
        """Features of student and teacher for the loss, in fp32."""
        preds_S, preds_T = self.read(student)[self.at], None
        if self.needs_teacher:
            preds_T = getattr(teacher.regions(self.key), FIELDS[self.at]).detach()
        if self.columns is not None:
            own, other = (torch.tensor(side).to(preds_S.device, non_blocking=True) for side in self.columns)
            preds_S = preds_S[:, own]
            preds_T = None if preds_T is None else preds_T[:, other]
        with naming(f'distill.{self.name}', 'read where there is what its connector takes', (preds_S, preds_T)):
            preds_S = self.connector(preds_S, preds_T)
        return upcast((preds_S, preds_T))

    def forward(self, student: Reading, teacher: Any, class_means: Tensor | None = None) -> dict[str, Tensor]:
        labels = student.regions(self.key).labels
        features, facts = self.traits.arguments(*self._pair(student, teacher), labels=labels, class_means=class_means)
        return self.named(self.run(*features, **facts))

    def read(self, student: Reading) -> dict[str, Tensor]:
        return {self.at: getattr(student.regions(self.key), FIELDS[self.at])}

    def parts(self, student: Reading, teacher: Any, class_means: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        values = (*self._pair(student, teacher), class_means)
        for what, value in zip(("student's regions", "teacher's regions", "teacher's class means"), values):
            if value is not None:
                yield f'{self.at}: {{}} of the {what}', value
