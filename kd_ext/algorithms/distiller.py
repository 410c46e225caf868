"""Turns the readings of a batch into a dict of named loss terms."""

from __future__ import annotations

from functools import partial
from logging import WARNING
from typing import Any, Iterator

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_ext.errors import expected, iteration, value_error
from kd_ext.taps import Reading, RegionTap
from kd_ext.teachers.class_map import ClassMap
from kd_ext.teachers.forward import TeacherPass
from kd_ext.terms.finite_check import FiniteCheck
from kd_ext.terms.level_term import LevelTerm
from kd_ext.terms.match_table import Matches
from kd_ext.terms.plan import chosen_teacher, entry_tap, probe_taps, split_entries
from kd_ext.terms.reach import is_compiling, reaches_student
from kd_ext.terms.region_wiring import RegionWiring
from kd_ext.terms.term import Term
from kd_ext.terms.weighting import Weighting


class Distiller(nn.Module):
    """Taps, connectors, class means and losses of all entries of ``distill=``.

    It says what to read and turns readings into terms, but knows nothing of training. Its state is what resuming
    needs besides the student.

    Args:
        distill: Entries by name.
        student, teachers: Probed once, not kept.
        classes: Maps from the student's classes to each teacher's.

    Attributes:
        terms, weightings: By entry.
        taps: By key.
        teacher_of: Name of each entry's teacher.
        matches: Table of what learns from what.
        finite: Checks the terms, and in an algorithm the task loss too.
        class_means, means_of, online, own, by_class: See :class:`RegionWiring`.

    Raises:
        ValueError: An entry cannot be used, or none is left because the class lists share no class.
    """

    def __init__(
        self,
        distill: dict[str, dict[str, Any]] | None,
        student: nn.Module,
        teachers: dict[str, Any],
        classes: dict[str, ClassMap],
    ) -> None:
        super().__init__()
        if isinstance(distill, dict):  # None in a config drops the entry of a base config
            distill = {name: entry for name, entry in distill.items() if entry is not None}
        if not isinstance(distill, dict) or not distill:
            raise value_error(
                'distill',
                'a dict of at least one named loss',
                repr(distill),
                "For example distill=dict(rcka=dict(type='kd_ext.RCKALoss', at='neck')).",
            )
        losses, settings = split_entries(distill)
        taps = {name: entry_tap(name, given) for name, given in settings.items()}
        self.classes = classes
        self.teacher_of = {name: chosen_teacher(name, given, teachers) for name, given in settings.items()}
        self.taps = {tap.key: tap for tap in taps.values()}
        shapes_S, _ = probe_taps(self.taps, student, 'student')
        shapes_T, self.calls = {}, {}
        several = len(teachers) > 1
        for role, teacher in teachers.items():
            own = {tap.key: tap for name, tap in taps.items() if self.teacher_of[name] == role}
            shapes_T[role], self.calls[role] = probe_taps(own, teacher, role)
        wiring = RegionWiring(student, teachers, classes)
        terms: dict[str, Term] = {}
        weightings: dict[str, Weighting] = {}
        self.matches = Matches()
        for name, given in settings.items():
            tap, role = taps[name], self.teacher_of[name]
            # checked first: it needs no model
            weighting = Weighting(name, given.schedule, given.balance)
            term: Term | None
            if isinstance(tap, RegionTap):
                term = wiring.term(name, losses[name], tap, given, role)
            else:
                shapes = shapes_S[tap.key], shapes_T[role][tap.key]
                term = LevelTerm(name, losses[name], tap, *shapes, given, teachers[role], terms)
            if term is None:
                text = f'{name}: left out, it is by class; {classes[role].describe()}'
                self.matches.notes.append(text)
                print_log(text, 'current', WARNING)
                continue
            terms[name], weightings[name] = term, weighting
            self.matches.add(term, role if several else '')
        if not terms:
            raise value_error(
                'distill',
                'of something that does not go by class, where teacher and student have no class in common',
                ', '.join(settings),
                "Terms at 'neck' and 'backbone' do, and those at 'embedding' where both have heads of one family.",
            )
        _joined({name: term.zeros() for name, term in terms.items()})
        self.terms: Any = _Entries(terms)
        self.weightings: Any = nn.ModuleDict(weightings)
        self._unmoved = {*terms}  # entries whose gradient is still to be checked
        self.matches.notes += [mapped.describe() for mapped in classes.values() if not mapped.same]
        self.matches.added = sum(p.numel() for p in self.parameters())
        print_log(f'matches: what learns from what\n{self.matches}', 'current')
        self.class_means: Any = nn.ModuleDict(wiring.class_means)
        self.means_of, self.online, self.own = wiring.means_of, wiring.online, wiring.own
        self.by_class = wiring.by_class
        self.finite = FiniteCheck()

    @property
    def active(self) -> list[str]:
        """Entries that act in this step; the same on every process."""
        return [name for name in self.terms if self.weightings[name].on]

    def teacher_passes(self) -> dict[str, TeacherPass]:
        """The passes of this step, for the teachers that a tap reads."""
        keys: dict[str, set[str]] = {}
        for name in self.active:
            if self.terms[name].needs_teacher:
                keys.setdefault(self.teacher_of[name], set()).add(self.terms[name].key)
            if self.means_of.get(name) in self.online:
                role, key = self.online[self.means_of[name]]
                keys.setdefault(role, set()).add(key)
        return {
            role: TeacherPass(
                {key: tap for key, tap in self.taps.items() if key in asked},
                self.own[role] & asked,
                self.classes[role],
                self.calls[role],
            )
            for role, asked in keys.items()
        }

    def reading(self, model: nn.Module) -> Reading:
        """Context in which the student's loss runs."""
        keys = {self.terms[name].key for name in self.active}
        return Reading({key: tap for key, tap in self.taps.items() if key in keys}, model, 'student')

    def forward(self, student: Reading, teachers: dict[str, Reading], task_loss: Tensor) -> dict[str, Tensor]:
        """Weighted terms by log key.

        Entries with a schedule or a balance add their ``factor_<name>``. Entries that are off are not computed:
        their zeros keep their parameters in the graph, and state of their losses (the means of ``NCKDLoss``) stays
        unchanged, on all processes alike. ``task_loss`` is the student's own, detached.

        Raises:
            FloatingPointError: A term is not finite; on a GPU ``backward()`` raises it, see :class:`FiniteCheck`.
            RuntimeError: A term cannot move the student.
            ValueError: Two terms have the same log key.
        """
        active = self.active
        if self.training:
            self._update_class_means(teachers, active)
        terms = {name: self.terms[name](*self._inputs(name, student, teachers)) for name in active}
        values = [value for found in terms.values() for value in found.values()]
        self.finite(values, partial(self._name_fault, terms, student, teachers))
        if self._unmoved and self.training and torch.is_grad_enabled() and not is_compiling():
            self._check_gradient(terms, student)
        return _joined(
            {
                name: weighting(terms[name], task_loss) if name in terms else self._zeros(name)
                for name, weighting in self.weightings.items()
            }
        )

    def _check_gradient(self, terms: dict[str, dict[str, Tensor]], student: Reading) -> None:
        """At the first step at which a term is not 0, raises a ``RuntimeError`` unless it reaches the student."""
        for name in sorted(self._unmoved & {*terms}):
            values = terms[name].values()
            if not any(bool(value != 0) for value in values):
                continue
            still = ', '.join(self.terms[name].without_gradient(student))
            if not reaches_student(values, self.parameters()):
                found = f'no gradient from {still}' if still else 'a value whose gradient reaches none'
                remedy = 'The loss or a connector detaches the features of the student: correct it.'
                if still:
                    remedy = (
                        'Frozen stages and the inside of a block with with_cp=True give none: tap a later place, '
                        'train these stages, or set with_cp=False.'
                    )
                rule = 'read where its gradient reaches a parameter of the student'
                raise RuntimeError(expected(f'distill.{name}', rule, found, remedy))
            if still:
                print_log(f'distill.{name}: {still} of the student have no gradient', 'current', WARNING)
            self._unmoved.discard(name)

    def _inputs(self, name: str, student: Reading, teachers: dict[str, Reading]) -> tuple:
        """What a term compares: two readings, and class means if it uses any."""
        means = self.means_of.get(name)
        return student, teachers.get(self.teacher_of[name]), None if means is None else self.class_means[means].means

    def _update_class_means(self, teachers: dict[str, Reading], active: list[str]) -> None:
        """Adds the batch to the running means that an active term uses."""
        used = {self.means_of.get(name) for name in active}
        for means, (role, key) in sorted(self.online.items()):
            if means not in used:
                continue
            regions, classes = teachers[role].regions(key), self.classes[role]
            labels: Any = regions.labels
            if key in self.own[role] and not classes.same:
                labels = classes.labels_to_student(labels)
            self.class_means[means].update(regions.embeddings, labels)

    def idle(self) -> dict[str, Tensor]:
        """All terms at 0, with every parameter of the distiller in their graph.

        DDP then finds no unused parameters while nothing is distilled.
        """
        return {key: value for name in self.terms for key, value in self._zeros(name).items()}

    def _zeros(self, name: str) -> dict[str, Tensor]:
        return self.weightings[name].idle(self.terms[name].zeros())

    def _name_fault(self, terms: dict[str, dict[str, Tensor]], student: Reading, teachers: dict[str, Reading]) -> None:
        for name, values in terms.items():
            names = [key for key, value in values.items() if not bool(torch.isfinite(value).all())]
            if not names:
                continue
            fault = self.terms[name].fault(*self._inputs(name, student, teachers)) or 'the loss itself'
            remedy = "Lower the learning rate or this term's loss_weight, clip gradients, or train without --amp."
            if 'teacher' in fault:
                remedy = "Look at teacher_ckpt and at the teacher's data_preprocessor."
            if 'class means' in fault:
                remedy = 'Compute the file of class_means again; of running ones, look at teacher_ckpt.'
            found = f'{float(values[names[0]].detach())}; first seen in {fault}'
            raise FloatingPointError(
                expected(f'distill.{names[0]} at iteration {iteration()}', 'finite', found, remedy)
            )


class _Entries(nn.ModuleDict):
    """Terms by entry, with numbers as names for optimizer constructors.

    ``custom_keys`` match any part of a name; those for ``backbone`` must not match an entry of that name.
    """

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        for index, module in enumerate(self.values()):
            yield str(index), module

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(list(self)[int(name)] if name.isdigit() else name, module)


def _joined(terms: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The values of all entries in one dict; raises a ``ValueError`` if two have the same log key."""
    joined: dict[str, Tensor] = {}
    for name, values in terms.items():
        for key, value in values.items():
            if key in joined:
                raise value_error(
                    'the log keys of distill',
                    'different for each term',
                    f'distill.{key} of two entries, one of them {name!r}',
                    'Rename one of the two.',
                )
            joined[key] = value
    return joined
