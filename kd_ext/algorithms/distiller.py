"""From two readings of a batch to a dict of named loss terms."""

from logging import WARNING

import torch
from mmengine.logging import print_log
from torch import nn

from kd_ext.build.probe import blank_samples, probing
from kd_ext.errors import expected, iteration, near_matches, value_error
from kd_ext.taps import PartTap, Reading, build_tap
from kd_ext.teachers.forward import TeacherPass
from kd_ext.terms.entry import OF_MAPS, OF_REGIONS, WEIGHTS, split_entry
from kd_ext.terms.level_term import LevelTerm, zero_terms
from kd_ext.terms.match_table import Matches
from kd_ext.terms.reach import reaches_student
from kd_ext.terms.region_wiring import RegionWiring
from kd_ext.terms.weighting import Weighting


class Distiller(nn.Module):
    """Taps, connectors, class means and losses of all entries of ``distill=``.

    Knows nothing of training: it says what to read, and turns what was read into terms. Its state is what resuming
    needs besides the student; what it compares with what is in ``matches``.

    Args:
        distill (dict[str, dict]): Entries by name.
        student (nn.Module): Probed once, not kept.
        teachers (dict[str, nn.Module]): By name; probed once, not kept.
        classes (dict[str, ClassMap]): Of the student and each teacher.

    Raises:
        ValueError: An entry cannot be used, or none is left because the class lists have nothing in common.
    """

    def __init__(self, distill, student, teachers, classes):
        super().__init__()
        if not isinstance(distill, dict) or not distill:
            raise value_error(
                'distill',
                'a dict of at least one named loss',
                repr(distill),
                "For example distill=dict(rcka=dict(type='kd_ext.RCKALoss', at='neck')).",
            )
        entries = _in_order({name: split_entry(name, cfg) for name, cfg in distill.items()})
        self.classes = classes
        self.teacher_of = {name: _teacher(name, settings, teachers) for name, (_, settings) in entries.items()}
        taps = {name: _tap(name, settings) for name, (_, settings) in entries.items()}
        self.taps = {tap.key: tap for tap in taps.values()}
        seen_S, _ = _probe(self.taps, student, 'student')
        seen_T, regions, self.calls = {}, {}, {}
        for role, teacher in teachers.items():
            seen_T[role], self.calls[role] = _probe(
                {taps[name].key: taps[name] for name in entries if self.teacher_of[name] == role}, teacher, role
            )
            regions[role] = RegionWiring(student, teacher, classes[role], f'{role}_' if len(teachers) > 1 else '')
        self.terms, self.weightings = _Entries(), nn.ModuleDict()
        self.matches = Matches()
        for name, (loss, settings) in entries.items():
            tap, role = taps[name], self.teacher_of[name]
            # checked first: it needs no model
            weighting = Weighting(name, *map(settings.get, WEIGHTS))
            if tap.of_regions:
                term = regions[role].term(name, loss, tap, settings)
                shapes = ()
            else:
                shapes = seen_S[tap.key], seen_T[role][tap.key]
                term = LevelTerm(name, loss, tap, *shapes, settings, teachers[role], self.terms)
            if term is None:
                text = f'{name}: left out, it is by class; {classes[role].describe()}'
                self.matches.notes.append(text)
                print_log(text, 'current', WARNING)
                continue
            self.terms[name], self.weightings[name] = term, weighting
            self.matches.add(term, shapes, role if len(teachers) > 1 else '')
        if not self.terms:
            raise value_error(
                'distill',
                'of something that does not go by class, where teacher and student have no class in common',
                ', '.join(entries),
                "Terms at 'neck' and 'backbone' do, and those at 'embedding' where both have heads of one family.",
            )
        _check_log_keys(self.terms)
        self._unmoved = {*self.terms}  # entries whose gradient was not looked at yet
        self.matches.notes += [mapped.describe() for mapped in classes.values() if not mapped.same]
        self.matches.added = sum(p.numel() for p in self.parameters())
        print_log(f'matches: what learns from what\n{self.matches}', 'current')
        self.class_means = nn.ModuleDict()
        self.means_of, self.online, self.own = {}, {}, {}
        self.by_class = set()  # entries that compare class by class
        for role, wiring in regions.items():
            self.own[role] = wiring.own
            self.by_class |= wiring.by_class
            self.class_means.update(wiring.class_means)
            self.means_of.update(wiring.means_of)
            self.online.update({means: (role, key) for means, key in wiring.online.items()})

    @property
    def active(self):
        """Names of the entries that act in this step, on every process."""
        return [name for name in self.terms if self.weightings[name].on]

    def teacher_passes(self):
        """How far each teacher has to run in this step.

        Returns:
            dict[str, TeacherPass]: Without teachers that no tap asks for.
        """
        keys = {}
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

    def reading(self, model):
        """Context in which the student's loss is run."""
        keys = {self.terms[name].key for name in self.active}
        return Reading({key: tap for key, tap in self.taps.items() if key in keys}, model, 'student')

    def forward(self, student, teachers, task_loss):
        """Weighted terms: dict[str, Tensor].

        Where an entry has a schedule or a balance, its ``factor_<name>`` is beside them. Entries that are off are
        not computed: their zeros stay in the graph of their parameters, and what their losses keep (the means of
        ``NCKDLoss``) stays as it is, on every process alike.

        Args:
            student (Reading): Of its pass.
            teachers (dict[str, Reading]): Of those that ran.
            task_loss (Tensor): The student's own, detached.
        """
        active = self.active
        if self.training:
            self._update_class_means(teachers, active)
        terms = {name: self.terms[name](*self._inputs(name, student, teachers)) for name in active}
        if not bool(
            torch.isfinite(
                torch.stack([value.detach() for values in terms.values() for value in values.values()])
            ).all()
        ):
            self._name_fault(terms, student, teachers)
        if self._unmoved and self.training and torch.is_grad_enabled():
            self._check_gradient(terms, student)
        losses = {}
        for name, weighting in self.weightings.items():
            values = weighting(terms[name], task_loss) if name in terms else self._zeros(name)
            _check_log_key(name, values, losses)
            losses.update(values)
        return losses

    def _check_gradient(self, terms, student):
        """At the first step at which a term is not 0: its gradient reaches the student.

        Raises:
            RuntimeError: It reaches no parameter of the student, which would learn nothing from the term.
        """
        if torch.compiler.is_compiling():  # the graph is not made yet
            return
        for name in self._unmoved & {*terms}:
            values = terms[name].values()
            if not any(bool(value != 0) for value in values):
                continue
            still = self.terms[name].without_gradient(student)
            if not reaches_student(values, self.parameters()):
                raise RuntimeError(
                    expected(
                        f'distill.{name}',
                        'read where its gradient reaches a parameter of the student',
                        f'no gradient from {", ".join(still)}' if still else 'a value whose gradient reaches none',
                        'Frozen stages and the inside of a block with with_cp=True give none: tap a later place, '
                        'train these stages, or set with_cp=False.'
                        if still
                        else 'The loss or a connector detaches the features of the student: correct it.',
                    )
                )
            if still:
                print_log(f'distill.{name}: {", ".join(still)} of the student have no gradient', 'current', WARNING)
            self._unmoved.discard(name)

    def _inputs(self, name, student, teachers):
        """What a term compares: two readings, and the class means if any."""
        means = self.means_of.get(name)
        return (student, teachers.get(self.teacher_of[name]), None if means is None else self.class_means[means].means)

    def _update_class_means(self, teachers, active):
        """Running means take in a batch while a term that uses them acts."""
        used = {self.means_of.get(name) for name in active}
        for means, (role, key) in sorted(self.online.items()):
            if means not in used:
                continue
            regions, classes = teachers[role].regions(key), self.classes[role]
            labels = regions.labels
            if key in self.own[role] and not classes.same:
                labels = classes.labels_to_student(labels)
            self.class_means[means].update(regions.embeddings, labels)

    def idle(self):
        """The same terms at 0, in the graph of every own parameter.

        Keeps distributed training free of unused parameters while nothing is distilled.
        """
        return {key: value for name in self.terms for key, value in self._zeros(name).items()}

    def _zeros(self, name):
        return self.weightings[name].idle(zero_terms(self.terms[name]))

    def _name_fault(self, terms, student, teachers):
        for name, values in terms.items():
            fault = self.terms[name].fault(*self._inputs(name, student, teachers))
            names = [key for key, value in values.items() if not bool(torch.isfinite(value).all())]
            if names:
                raise FloatingPointError(
                    expected(
                        f'distill.{names[0]} at iteration {iteration()}',
                        'finite',
                        f'{float(values[names[0]].detach())}; first seen in {fault or "the loss itself"}',
                        "Look at teacher_ckpt and at the teacher's data_preprocessor."
                        if 'teacher' in (fault or '')
                        else "Lower the learning rate or this term's loss_weight, "
                        'clip gradients, or train without --amp.',
                    )
                )


class _Entries(nn.ModuleDict):
    """Terms by entry, with numbers for names where optimizer constructors look.

    ``custom_keys`` match any part of a name: the connectors of an entry called ``backbone`` are no backbone.
    """

    def named_children(self):
        for index, module in enumerate(self.values()):
            yield str(index), module

    def add_module(self, name, module):
        super().add_module(list(self)[int(name)] if name.isdigit() else name, module)


def _in_order(entries):
    """By name, those that use another's connectors last.

    MMEngine sorts the keys of a config that it writes, and sums rounded numbers in the order of their terms.
    """
    return dict(sorted(entries.items(), key=lambda item: (isinstance(item[1][1].get('connector'), str), item[0])))


def _teacher(name, settings, teachers):
    """Name of the teacher of an entry."""
    chosen = settings.get('teacher')
    if chosen is None and len(teachers) == 1:
        return next(iter(teachers))
    if not isinstance(chosen, str) or chosen not in teachers:
        raise value_error(
            f'distill.{name}.teacher',
            f'one of {", ".join(teachers)}',
            repr(chosen),
            near_matches(chosen, teachers)
            if chosen is not None
            else 'With several teachers each entry says which one it is of.',
        )
    return chosen


def _tap(name, settings):
    tap = build_tap(settings['at'], settings.get('stage'), settings.get('levels'))
    for rule, wrong in (('unless', OF_REGIONS), ('where', OF_MAPS)):
        for setting in wrong:
            if setting in settings and tap.of_regions == (wrong is OF_MAPS):
                raise value_error(
                    f'distill.{name}',
                    f"without {setting} {rule} at is 'embedding' or 'logits'",
                    f'at={settings["at"]!r}',
                )
    return tap


def _check_log_keys(terms):
    """That no two entries log under one key: the later one would take the place of the earlier in the loss."""
    keys = {}
    for name, term in terms.items():
        _check_log_key(name, zero_terms(term), keys)
        keys.update(dict.fromkeys(zero_terms(term)))


def _check_log_key(name, values, known):
    for key in values:
        if key in known:
            raise value_error(
                'the log keys of distill',
                'different for each term',
                f'distill.{key} of two entries, one of them {name!r}',
                'Rename one of the two.',
            )


def _probe(taps, model, role):
    """Every tapped feature map on a blank image: shapes, and the calls of its module, by key."""
    taps = {key: tap for key, tap in taps.items() if not tap.of_regions}
    if not taps:
        return {}, {}
    shallow = all(isinstance(tap, PartTap) for tap in taps.values())
    with probing(model) as inputs, Reading(taps, model, role, dict.fromkeys(taps, 1) if shallow else None) as reading:
        model(inputs, blank_samples(model, inputs), mode='tensor')
    return {key: [level.shape for level in reading.levels(key)] for key in taps}, reading.maps.calls()
