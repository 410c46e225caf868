"""From two readings of a batch to a dict of named loss terms."""

import torch
from mmengine.logging import MessageHub, print_log
from torch import nn

from kd_ext.messages import expected
from kd_ext.probe import blank_samples, probing
from kd_ext.taps import PartTap, Reading, build_tap
from .entry import OF_MAPS, OF_REGIONS, WEIGHTS, split_entry
from .region_wiring import RegionWiring
from .teacher_pass import TeacherPass
from .term import LevelTerm, zero_terms
from .weighting import Weighting


class Distiller(nn.Module):
    """Taps, connectors, class means and losses of all entries of ``distill=``.

    Knows nothing of training: it says what to read, and turns what was read
    into terms. Its state is what resuming needs besides the student.

    Args:
        distill (dict[str, dict]): Entries by name.
        student (nn.Module): Probed once, not kept.
        teacher (nn.Module): Probed once, not kept.
    """

    def __init__(self, distill, student, teacher):
        super().__init__()
        if not isinstance(distill, dict) or not distill:
            raise ValueError(expected(
                'distill', 'a dict of at least one named loss', repr(distill),
                "For example distill=dict(rcka=dict(type='kd_ext.RCKALoss', "
                "at='neck'))."))
        entries = _in_order({name: split_entry(name, cfg)
                             for name, cfg in distill.items()})
        self.weightings = nn.ModuleDict({
            name: Weighting(name, *map(settings.get, WEIGHTS))
            for name, (_, settings) in entries.items()})
        taps = {name: _tap(name, settings)
                for name, (_, settings) in entries.items()}
        self.taps = {tap.key: tap for tap in taps.values()}
        maps = {key: tap for key, tap in self.taps.items()
                if not tap.of_regions}
        seen_S = _probe(maps, student, 'student')
        seen_T = _probe(maps, teacher, 'teacher')
        regions = RegionWiring(student, teacher)
        self.terms = nn.ModuleDict()
        self.matches = []  # what learns from what, in words
        for name, (loss, settings) in entries.items():
            tap = taps[name]
            if tap.of_regions:
                self.terms[name] = regions.term(name, loss, tap, settings)
                lines = self.terms[name].describe()
            else:
                shapes = seen_S[tap.key], seen_T[tap.key]
                self.terms[name] = LevelTerm(name, loss, tap, *shapes,
                                             settings, teacher, self.terms)
                lines = self.terms[name].describe(*shapes)
            for line in lines:
                self.matches.append(line)
                print_log(line, 'current')
        self.class_means = nn.ModuleDict(regions.class_means)
        self.means_of = regions.means_of
        self.online, self.own = regions.online, regions.own

    @property
    def active(self):
        """Names of the entries that act in this step, on every process."""
        return [name for name in self.terms if self.weightings[name].on]

    @property
    def teacher_pass(self):
        """How far the teacher has to run in this step."""
        active = self.active
        keys = {self.terms[name].key for name in active
                if self.terms[name].needs_teacher}
        keys |= self.online & {self.means_of.get(name) for name in active}
        return TeacherPass({key: tap for key, tap in self.taps.items()
                            if key in keys}, self.own & keys)

    def reading(self, model):
        """Context in which the student's loss is run."""
        keys = {self.terms[name].key for name in self.active}
        return Reading({key: tap for key, tap in self.taps.items()
                        if key in keys}, model, 'student')

    @property
    def needs_teacher(self):
        """Whether any tap asks for the teacher in this step."""
        return bool(self.teacher_pass.taps)

    def forward(self, student, teacher, task_loss):
        """Weighted terms: dict[str, Tensor].

        Where an entry has a schedule or a balance, its ``factor_<name>`` is
        beside them. Entries that are off are not computed: their zeros stay
        in the graph of their parameters, and what their losses keep (the
        means of ``NCKDLoss``) stays as it is, on every process alike.

        Args:
            student, teacher (Reading): Of both passes.
            task_loss (Tensor): The student's own, detached.
        """
        active = self.active
        if self.training:
            self._update_class_means(teacher, active)
        terms = {name: self.terms[name](student, teacher, self._means(name))
                 for name in active}
        if not bool(torch.isfinite(torch.stack(
                [value.detach() for values in terms.values()
                 for value in values.values()])).all()):
            self._name_fault(terms, student, teacher)
        losses = {}
        for name, weighting in self.weightings.items():
            losses.update(weighting(terms[name], task_loss)
                          if name in terms else self._zeros(name))
        return losses

    def _means(self, name):
        key = self.means_of.get(name)
        return None if key is None else self.class_means[key].means

    def _update_class_means(self, teacher, active):
        """Running means take in a batch while a term that uses them acts."""
        for key in sorted(self.online
                          & {self.means_of.get(name) for name in active}):
            regions = teacher.regions(key)
            self.class_means[key].update(regions.embeddings, regions.labels)

    def idle(self):
        """The same terms at 0, in the graph of every own parameter.

        Keeps distributed training free of unused parameters while nothing
        is distilled.
        """
        return {key: value for name in self.terms
                for key, value in self._zeros(name).items()}

    def _zeros(self, name):
        return self.weightings[name].idle(zero_terms(self.terms[name]))

    def _name_fault(self, terms, student, teacher):
        iteration = MessageHub.get_current_instance().runtime_info.get('iter')
        for name, values in terms.items():
            fault = self.terms[name].fault(student, teacher,
                                           self._means(name))
            names = [key for key, value in values.items()
                     if not bool(torch.isfinite(value).all())]
            if names:
                raise FloatingPointError(expected(
                    f'distill.{names[0]} at iteration {iteration}', 'finite',
                    f'{float(values[names[0]].detach())}; first seen in '
                    f'{fault or "the loss itself"}',
                    'Lower the learning rate or this term\'s loss_weight, '
                    'clip gradients, or train without --amp.'))


def _in_order(entries):
    """By name, those that use another's connectors last.

    MMEngine sorts the keys of a config that it writes, and sums rounded
    numbers in the order of their terms.
    """
    return dict(sorted(entries.items(), key=lambda item: (
        isinstance(item[1][1].get('connector'), str), item[0])))


def _tap(name, settings):
    tap = build_tap(settings['at'], settings.get('stage'),
                    settings.get('levels'))
    for rule, wrong in (('unless', OF_REGIONS), ('where', OF_MAPS)):
        for setting in wrong:
            if setting in settings and tap.of_regions == (wrong is OF_MAPS):
                raise ValueError(expected(
                    f'distill.{name}', f'without {setting} {rule} at is '
                    "'embedding' or 'logits'", f'at={settings["at"]!r}'))
    return tap


def _probe(taps, model, role):
    """Shapes of every tapped feature map on a blank image, by key."""
    if not taps:
        return {}
    shallow = all(isinstance(tap, PartTap) for tap in taps.values())
    with probing(model) as inputs, Reading(
            taps, model, role,
            dict.fromkeys(taps, 1) if shallow else None) as reading:
        model(inputs, blank_samples(model, inputs), mode='tensor')
    return {key: [level.shape for level in reading.levels(key)]
            for key in taps}

