"""A term on regions: embeddings or logits, with labels and class means."""

import torch
from mmengine.logging import print_log
from torch import nn

from kd_ext.build.modules import naming
from kd_ext.connectors import Connector
from kd_ext.errors import value_error
from kd_ext.losses.precision import upcast
from kd_ext.losses.protocol import LossTraits
from kd_ext.terms.entry import run_loss, set_up
from kd_ext.terms.level_term import count_bad, named_terms
from kd_ext.terms.match_table import Match, Side

FIELDS = dict(embedding='embeddings', logits='logits')


class RegionTerm(nn.Module):
    """Reads the same regions of both models, weighs them with a loss.

    Args:
        name (str): Key of the entry.
        loss (nn.Module): The loss, as built.
        traits (LossTraits): What it asks for.
        at (str): ``'embedding'`` or ``'logits'``.
        key (str): Of the tap.
        student, teacher (Head): Of both models, as built.
        shared (bool): Whether the teacher can read the student's regions.
        width (int): Of what the student is compared with.
        classes (ClassMap): Which logits mean the same.
        connector (dict, optional): Projector in place of the automatic one.

    Raises:
        ValueError: The loss compares regions that the teacher cannot read, or logits of another kind.
    """

    def __init__(
        self, name, loss, traits: LossTraits, at, key, student, teacher, shared, width, classes, connector=None
    ):
        super().__init__()
        self.name, self.key, self.at = name, key, at
        self.loss, self.traits = loss, traits
        self.needs_teacher = traits.teacher is not None and shared
        if traits.teacher is not None and not shared:
            self._without_teacher(student, teacher)
        own = student.width if at == 'embedding' else student.num_logits
        self.columns = None
        if at == 'logits':
            self._check_logits(student, teacher)
            if not classes.same:
                self.columns = self._columns(student, classes)
                own = width = len(self.columns[0])
        set_up(
            f'distill.{name}.at',
            self.loss,
            traits,
            num_classes=student.num_classes,
            width=width,
            use_sigmoid=student.use_sigmoid,
        )
        self.connector = Connector.between((1, own), (1, width), connector, f'distill.{name}.connector')
        how = self.connector.describe((1, own), (1, width))
        source = (
            'the same regions' if self.needs_teacher else 'class means' if traits.asks('class_means') else 'labels'
        )
        if not shared and traits.asks('class_means'):
            source = f'class means of {teacher.family} regions'
        self.match = Match(name, Side(f'{at} of {student.family} regions', (own,)), Side(source, (width,)), *how)

    def _without_teacher(self, student, teacher):
        pair = f'the {student.family} regions of {student.name} and the {teacher.family} regions of {teacher.name}'
        if not self.traits.asks('class_means'):
            raise value_error(
                f'distill.{self.name}',
                'read where teacher and student have regions in common',
                pair,
                "kd_ext.NCKDLoss and kd_ext.NDLoss work there; others at 'neck' and 'backbone' do.",
            )
        print_log(
            f'distill.{self.name}: {pair} have no places in common; '
            "the norms of the class means stand in for the teacher's",
            'current',
            30,
        )

    def _check_logits(self, student, teacher):
        sides = [
            (head.num_logits - head.num_classes, 'sigmoid' if head.use_sigmoid else 'softmax')
            for head in (student, teacher)
        ]
        if sides[0] != sides[1]:
            text = [
                f'{head.num_logits} {kind} logits of {head.num_classes} classes'
                for head, (_, kind) in zip((student, teacher), sides)
            ]
            raise value_error(
                f'distill.{self.name}',
                'read from logits of one kind',
                f'{text[0]} in the student and {text[1]} in the teacher',
                "Use at='embedding' or at='neck' there.",
            )
        other = student.other_anchors(teacher) if self.needs_teacher else ''
        if other:
            raise value_error(
                f'distill.{self.name}',
                'read from logits of the same anchors in student and teacher',
                f'anchors that differ: {other}',
                "Use at='embedding' or at='neck' there.",
            )

    def _columns(self, student, classes):
        if self.traits.asks('labels'):
            raise value_error(
                f'distill.{self.name}',
                'of teacher and student with the same classes, as its loss takes logits and labels',
                classes.describe(),
            )
        return classes.columns(student.num_logits > student.num_classes)

    def describe(self):
        """The one :class:`Match`."""
        yield self.match

    def _inputs(self, student, teacher, class_means):
        """Student and teacher features in fp32, and the facts that a loss may ask for by name."""
        regions = student.regions(self.key)
        field = FIELDS[self.at]
        preds_T = None
        if self.needs_teacher:
            preds_T = getattr(teacher.regions(self.key), field).detach()
        preds_S = getattr(regions, field)
        if self.columns is not None:
            own, other = self.columns
            preds_S = preds_S[:, own]
            preds_T = None if preds_T is None else preds_T[:, other]
        with naming(f'distill.{self.name}', 'read where there is what its connector takes', (preds_S, preds_T)):
            preds_S = self.connector(preds_S, preds_T)
        return upcast((preds_S, preds_T)), dict(labels=regions.labels, class_means=class_means)

    def forward(self, student, teacher, class_means=None):
        """Named loss terms from the readings of both passes."""
        pair, facts = self._inputs(student, teacher, class_means)
        features, named = self.traits.arguments(*pair, **facts)
        with torch.autocast(features[0].device.type, enabled=False):
            return named_terms(self.name, run_loss(self.name, self.loss, *features, **named))

    def without_gradient(self, student):
        """What this term reads of the student that has no gradient: list[str]."""
        return [] if getattr(student.regions(self.key), FIELDS[self.at]).requires_grad else [self.at]

    def fault(self, student, teacher, class_means=None):
        """Where this term stops being finite, in words, or None."""
        (preds_S, preds_T), facts = self._inputs(student, teacher, class_means)
        for what, value in (
            ("the student's regions", preds_S),
            ("the teacher's regions", preds_T),
            ("the teacher's class means", facts['class_means']),
        ):
            bad = count_bad(value) if value is not None else ''
            if bad:
                return f'{self.at}: {bad} of {what}'
        return None
