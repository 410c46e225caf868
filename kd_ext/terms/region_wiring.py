"""Creates the terms of region taps with their heads and class means."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from kd_ext.class_means.running import OnlineClassMeans
from kd_ext.class_means.stored import StoredClassMeans, load_class_means
from kd_ext.errors import value_error
from kd_ext.losses.protocol import LossTraits
from kd_ext.taps import RegionTap
from kd_ext.taps.heads import check_settings
from kd_ext.teachers.class_map import ClassMap
from kd_ext.terms.entry import build_loss
from kd_ext.terms.region_term import Heads, RegionTerm
from kd_ext.terms.term import Settings

ONLINE = 'online'


class RegionWiring:
    """Creates the terms of region taps, and the class means that they share.

    Attributes:
        class_means: By name in the state dict.
        means_of: Name of each entry's class means.
        online: Teacher and tap key of each running mean, by its name.
        own: Keys of the taps at which a teacher reads its own regions, by teacher.
        by_class: Entries that need student and teacher to have the same classes.
    """

    def __init__(self, student: nn.Module, teachers: dict[str, Any], classes: dict[str, ClassMap]) -> None:
        self.student, self.teachers, self.classes = student, teachers, classes
        self.class_means: dict[str, Any] = {}
        self.means_of: dict[str, str] = {}
        self.online: dict[str, tuple[str, str]] = {}
        self.own: dict[str, set[str]] = {role: set() for role in teachers}
        self.by_class: set[str] = set()
        self._heads: dict[tuple[str, str], Heads] = {}
        self._files: dict[tuple[str, Any], str] = {}

    def term(
        self, name: str, loss: dict[str, Any], tap: RegionTap, settings: Settings, role: str
    ) -> RegionTerm | None:
        """The :class:`RegionTerm` of an entry; None if it compares by class and the models share no class.

        Raises:
            ValueError: A head is not supported or class means do not fit; or see :class:`RegionTerm`.
        """
        heads, at, classes = self._pair(tap, role), settings.at, self.classes[role]
        built, traits = build_loss(name, loss)
        wants_means = traits.asks('class_means')
        if wants_means and at != 'embedding':
            raise value_error(f'distill.{name}.at', "'embedding', which class means are of", repr(at))
        if not wants_means and settings.class_means is not None:
            rule = f'without class_means, which {loss["type"]} does not take'
            raise value_error(f'distill.{name}', rule, 'class_means=')
        source = ONLINE if settings.class_means is None else settings.class_means
        if not isinstance(source, (str, os.PathLike)):
            raise value_error(f'distill.{name}.class_means', f'a file, or {ONLINE!r}', repr(source))
        own = wants_means and source == ONLINE and not heads.shared
        if at == 'logits' or own or (wants_means and source != ONLINE):
            self.by_class.add(name)
        if at == 'logits' or own:
            classes.check(heads.student.num_classes, heads.teacher.num_classes)
            if classes.disjoint:
                return None
        if wants_means:
            allowed = settings.allow_class_means_mismatch or False
            if not isinstance(allowed, bool) or (allowed and source == ONLINE):
                rule = 'True or False, and left out without a file of class means'
                raise value_error(f'distill.{name}.allow_class_means_mismatch', rule, repr(allowed))
            if source == ONLINE:
                means = self._online(role, tap.key, heads)
            else:
                means = self._stored(role, name, source, heads, allowed)
            self._check_classes(name, built, traits, heads, means)
            self.means_of[name] = means
        return RegionTerm(name, tap.key, built, traits, heads, classes, settings)

    def _pair(self, tap: RegionTap, role: str) -> Heads:
        if (role, tap.key) not in self._heads:
            student, teacher = tap.head(self.student, 'student'), tap.head(self.teachers[role], 'teacher')
            check_settings(tap.stage, tap.levels, student, teacher)
            self._heads[role, tap.key] = Heads(student, teacher, teacher.shares_places(student))
        return self._heads[role, tap.key]

    def _name(self, role: str, name: str) -> str:
        return f'{role}_{name}' if len(self.teachers) > 1 else name

    def _online(self, role: str, key: str, heads: Heads) -> str:
        """Creates the running means of a tap, unless they exist, and returns their name."""
        means = self._name(role, key)
        if means not in self.class_means:
            self.class_means[means] = OnlineClassMeans(heads.student.num_labels, heads.width('embedding'))
        self.online[means] = role, key
        if not heads.shared:
            self.own[role].add(key)
        return means

    def _stored(self, role: str, name: str, source: Any, heads: Heads, allowed: bool) -> str:
        """Loads the means of a file, unless they are loaded, and returns their name."""
        loaded = load_class_means(source)
        loaded.check_teacher(self.teachers[role], source, allowed, f'distill.{name}')
        if (role, source) not in self._files:
            found = loaded.of_classes(heads.student.num_classes, self.classes[role], source)
            width = heads.width('embedding')
            if found.shape[1] != width:
                rule = f"of width {width}, as the teacher's embeddings are"
                remedy = 'Compute them with this teacher: tools/class_means.py CONFIG CHECKPOINT.'
                raise value_error(f'distill.{name}.class_means', rule, f'{found.shape[1]} in {source!r}', remedy)
            means = self._name(role, f'file{sum(of == role for of, _ in self._files)}')
            self._files[role, source], self.class_means[means] = means, StoredClassMeans(found)
        return self._files[role, source]

    def _check_classes(self, name: str, loss: nn.Module, traits: LossTraits, heads: Heads, means: str) -> None:
        """Checks that the loss has enough classes to compare; with fewer it would stay 0."""
        count, background = heads.student.num_classes, heads.student.background
        if means not in self.online:
            known = self.class_means[means].means.abs().sum(1) > 0
            count, background = int(known[:count].sum()), bool(known[count:].any())
        elif not heads.shared and not self.classes[self.online[means][0]].same:
            count = len(self.classes[self.online[means][0]].common)
        found = count + (background and traits.include_background)
        if found < traits.least_classes:
            raise value_error(
                f'distill.{name}',
                f'given {traits.least_classes} or more classes with class means, as {type(loss).__name__} needs',
                found,
                'kd_ext.NDLoss works with one class; kd_ext.NCKDLoss does at RoI heads with include_background=True.',
            )
