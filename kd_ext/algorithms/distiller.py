"""From two readings of a batch to a dict of named loss terms."""

import torch
from mmengine.logging import MessageHub, print_log
from torch import nn

from kd_ext.messages import expected
from kd_ext.probe import blank_samples, probing
from kd_ext.taps import PartTap, Reading, build_tap
from .entry import OF_MAPS, OF_REGIONS, split_entry
from .region_wiring import RegionWiring
from .teacher_pass import TeacherPass
from .term import LevelTerm


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
        entries = {name: split_entry(name, cfg)
                   for name, cfg in distill.items()}
        taps = {name: _tap(name, settings)
                for name, (_, settings) in entries.items()}
        self.taps = {tap.key: tap for tap in taps.values()}
        maps = {key: tap for key, tap in self.taps.items()
                if not tap.of_regions}
        seen_S = _probe(maps, student, 'student')
        seen_T = _probe(maps, teacher, 'teacher')
        regions = RegionWiring(student, teacher)
        self.terms = nn.ModuleDict()
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
                print_log(line, 'current')
        self.class_means = nn.ModuleDict(regions.class_means)
        self.means_of = regions.means_of
        self.teacher_pass = TeacherPass(
            {key: tap for key, tap in self.taps.items()
             if key in regions.online or any(
                 term.needs_teacher for term in self.terms.values()
                 if term.key == key)}, regions.own)

    def reading(self, model):
        """Context in which the student's loss is run."""
        return Reading(self.taps, model, 'student')

    @property
    def needs_teacher(self):
        """Whether any tap asks for the teacher."""
        return bool(self.teacher_pass.taps)

    def forward(self, student, teacher):
        """Terms from the readings of both passes: dict[str, Tensor]."""
        if self.training:
            self._update_class_means(teacher)
        losses = {}
        for name, term in self.terms.items():
            losses.update(term(student, teacher, self._means(name)))
        if not bool(torch.isfinite(torch.stack(
                [value.detach() for value in losses.values()])).all()):
            self._name_fault(losses, student, teacher)
        return losses

    def _means(self, name):
        key = self.means_of.get(name)
        return None if key is None else self.class_means[key].means

    def _update_class_means(self, teacher):
        for key, means in self.class_means.items():
            if means.online:
                regions = teacher.regions(key)
                means.update(regions.embeddings, regions.labels)

    def idle(self):
        """The same terms at 0, in the graph of every own parameter.

        Keeps distributed training free of unused parameters once
        distillation has stopped.
        """
        zero = sum((p.sum() for p in self.parameters()),
                   torch.zeros(())) * 0
        return {f'loss_{name}': zero for name in self.terms}

    def _name_fault(self, losses, student, teacher):
        iteration = MessageHub.get_current_instance().runtime_info.get('iter')
        for name, term in self.terms.items():
            fault = term.fault(student, teacher, self._means(name))
            names = [key for key, value in losses.items()
                     if key.startswith(f'loss_{name}')
                     and not bool(torch.isfinite(value).all())]
            if names:
                raise FloatingPointError(expected(
                    f'distill.{names[0]} at iteration {iteration}', 'finite',
                    f'{float(losses[names[0]].detach())}; first seen in '
                    f'{fault or "the loss itself"}',
                    'Lower the learning rate or this term\'s loss_weight, '
                    'clip gradients, or train without --amp.'))


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

