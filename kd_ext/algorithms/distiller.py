"""From two recorded forward passes to a dict of named loss terms."""

import torch
from mmengine.logging import MessageHub, print_log
from torch import nn

from kd_ext.messages import expected
from kd_ext.taps import PartTap, Recorder, build_tap
from .term import Term, split_entry

PROBE_SIZE = 320  # the smallest common input of the detectors in mmdet


class Distiller(nn.Module):
    """Taps, connectors and losses of all entries of ``distill=``.

    Knows nothing of training: it says what to record, and turns what was
    recorded into terms. Its state is what resuming needs besides the student.

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
        self.taps = {settings['at']: build_tap(settings['at'])
                     for _, settings in entries.values()}
        seen_S = self._probe(student, 'student')
        seen_T = self._probe(teacher, 'teacher')
        self.terms = nn.ModuleDict()
        for name, (loss, settings) in entries.items():
            shapes = seen_S[settings['at']], seen_T[settings['at']]
            term = Term(name, loss, student=shapes[0], teacher=shapes[1],
                        **settings)
            for line in term.describe(*shapes):
                print_log(line, 'current')
            self.terms[name] = term

    def recorder(self, model, role, stop_after=None):
        """What to record of ``model``, as a context."""
        return Recorder({at: tap.source(model, role)
                         for at, tap in self.taps.items()}, stop_after)

    @torch.no_grad()
    def _probe(self, model, role):
        """Shapes of every tapped feature on a blank image."""
        modes = {module: module.training for module in model.modules()}
        once = all(isinstance(tap, PartTap) for tap in self.taps.values())
        inputs = next(model.parameters()).new_zeros(
            1, 3, PROBE_SIZE, PROBE_SIZE)
        model.eval()
        try:
            with self.recorder(
                    model, role,
                    dict.fromkeys(self.taps, 1) if once else None) as record:
                model(inputs, _blank_samples(), mode='tensor')
        finally:
            for module, mode in modes.items():
                module.training = mode
        return {at: [level.shape for level in record.levels(at)]
                for at in self.taps}

    def forward(self, student, teacher):
        """Terms from the recorders of both passes: dict[str, Tensor]."""
        losses = {}
        for term in self.terms.values():
            losses.update(term(student.levels(term.at),
                               teacher.levels(term.at)))
        if not bool(torch.isfinite(torch.stack(
                [value.detach() for value in losses.values()])).all()):
            self._name_fault(losses, student, teacher)
        return losses

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
        for term in self.terms.values():
            fault = term.fault(student.levels(term.at),
                               teacher.levels(term.at))
            names = [key for key, value in losses.items()
                     if key.startswith(f'loss_{term.name}')
                     and not bool(torch.isfinite(value).all())]
            if names:
                raise FloatingPointError(expected(
                    f'distill.{names[0]} at iteration {iteration}', 'finite',
                    f'{float(losses[names[0]].detach())}; first seen in '
                    f'{fault or "the loss itself"}',
                    'Lower the learning rate or this term\'s loss_weight, '
                    'clip gradients, or train without --amp.'))


def _blank_samples():
    from mmdet.structures import DetDataSample
    size = (PROBE_SIZE, PROBE_SIZE)
    return [DetDataSample(metainfo=dict(
        img_id=0, img_shape=size, ori_shape=size, pad_shape=size,
        batch_input_shape=size, scale_factor=(1., 1.)))]
