"""What one step of a distillation is made of, each part on its own.

``student`` is the student's own step, forward and backward; ``teacher`` the bare forward of the teachers as far as
the taps ask, head included where they read regions; ``distilled`` the step of the distillation. What is ideal is
the sum of the first two: a term is to cost nearly nothing beside them.
"""

import statistics
from typing import Callable, Dict

import torch
from torch import nn

from benchmarks.timing import quartiles

PARTS = 'student', 'teacher', 'distilled'
BACKBONE = 'backbone', 'pre_relu'
MIB = 2**20
MARGIN = 1.1


class Features:
    """What taps read, detached, as leaves: stands for a ``Reading``."""

    def __init__(self, reading, keys, taps):
        self._maps, self._regions = {}, {}
        for key in keys:
            if taps[key].of_regions:
                regions = reading.regions(key)
                self._regions[key] = regions._replace(
                    embeddings=_leaf(regions.embeddings), logits=_leaf(regions.logits)
                )
            else:
                self._maps[key] = tuple(map(_leaf, reading.levels(key)))

    def levels(self, key):
        """See ``Reading.levels``."""
        return self._maps[key]

    def regions(self, key):
        """See ``Reading.regions``."""
        return self._regions[key]

    def tensors(self):
        """All features, without places and labels: list[Tensor]."""
        found = [one for levels in self._maps.values() for one in levels]
        for regions in self._regions.values():
            found += [regions.embeddings, regions.logits]
        return found


def _leaf(tensor):
    return tensor.detach().requires_grad_()


class StepCost:
    """Candidates of one step of a model on one batch.

    Args:
        model (DetectionDistill): In training mode.
        batch (dict): Preprocessed, see ``generated_batch``.

    Attributes:
        losses (dict[str, float]): Terms and shares of the first step.
    """

    def __init__(self, model, batch):
        self.model, self.batch = model, batch
        self.inputs = {name: adapt(batch['inputs'], batch['data_samples']) for name, adapt in model.adapters.items()}
        self.seen, self.losses = self._look()

    def _look(self):
        """What every term was given in one step, and what came of it."""
        distiller, seen, handles = self.model.distiller, {}, []

        def keep(name):
            def hook(term, args):
                student, teacher, means = args
                keys = [term.key]
                seen[name] = (
                    Features(student, keys, distiller.taps),
                    Features(teacher, keys, distiller.taps) if term.needs_teacher else None,
                    None if means is None else means.clone(),
                )

            return hook

        for name, term in distiller.terms.items():
            handles.append(term.register_forward_pre_hook(keep(name)))
        losses = self.model(**self.batch, mode='loss')
        for handle in handles:
            handle.remove()
        task = {key: value for key, value in losses.items() if key.startswith('student.')}
        total, _ = self.model.parse_losses(losses)
        task, _ = self.model.parse_losses(task)
        values = {
            key[len('distill.') :]: float(value.detach())
            for key, value in losses.items()
            if key.startswith('distill.')
        }
        return seen, dict(total=float(total.detach()), task=float(task.detach()), **values)

    def parts(self) -> Dict[str, Callable[[], None]]:
        """The three of ``PARTS``."""
        return dict(student=self.step(self.model.student), teacher=self.teachers, distilled=self.step(self.model))

    def terms(self) -> Dict[str, Callable[[], None]]:
        """Each term on what it was given: forward and backward."""

        def run(term, args):
            def once():
                losses = term(*args)
                torch.autograd.backward(list(losses.values()))
                for leaf in (*args[0].tensors(), *term.parameters()):
                    leaf.grad = None

            return once

        return {name: run(self.model.distiller.terms[name], args) for name, args in self.seen.items()}

    def step(self, model) -> Callable[[], None]:
        """A training step of an algorithm or detector, without optimizer."""

        def run():
            losses = model(**self.batch, mode='loss')
            self.model.parse_losses(losses)[0].backward()
            model.zero_grad(set_to_none=True)

        return run

    @torch.no_grad()
    def teachers(self):
        """The bare forward of each teacher, as far as the taps ask."""
        for name, run in self.model.distiller.teacher_passes().items():
            teacher, inputs = self.model.teachers[name], self.inputs[name]
            reach = reach_of(run)
            if reach == 'own loss':
                teacher(inputs, self.batch['data_samples'], mode='loss')
            elif reach == 'whole':
                teacher(inputs, self.batch['data_samples'], mode='tensor')
            elif reach == 'backbone':
                teacher.backbone(inputs)
            else:
                features = teacher.extract_feat(inputs)
                for key in run.shared:
                    run.taps[key].head(teacher, 'teacher').at(features, self._places(key))

    def _places(self, key):
        return next(
            student.regions(key).places
            for name, (student, *_) in self.seen.items()
            if self.model.distiller.terms[name].key == key
        )

    def reaches(self):
        """How far each teacher runs, in a word: dict[str, str]."""
        return {name: reach_of(run) for name, run in self.model.distiller.teacher_passes().items()}

    def memory(self) -> Dict[str, float]:
        """MiB of the models and of what the teachers' taps keep."""
        # terms at one tap were given the same features
        features = {
            tensor.data_ptr(): tensor
            for _, teacher, _ in self.seen.values()
            if teacher
            for tensor in teacher.tensors()
        }
        return dict(
            student=_weights(self.model.student),
            teachers=sum(map(_weights, self.model.teachers.values())),
            matched=_mib(features.values()),
        )


def reach_of(run):
    """``backbone``, ``neck``, ``head``, ``whole`` or ``own loss``."""
    if run.own:
        return 'own loss'
    if not run.shallow:
        return 'whole'
    if run.shared:
        return 'head'
    paths = {tap.path for tap in run.taps.values()}
    return 'backbone' if paths <= set(BACKBONE) else 'neck'


def _weights(model: nn.Module):
    return _mib([*model.parameters(), *model.buffers()])


def _mib(tensors):
    return sum(one.numel() * one.element_size() for one in tensors) / MIB


def overhead(times, terms):
    """How the distilled step compares with its parts, repeat by repeat.

    Args:
        times (dict[str, list[float]]): Of :func:`interleave`, seconds.
        terms (Sequence[str]): Candidates that are terms.

    Returns:
        dict: ``ratio`` of the distilled step to student + teacher with quartiles; in ms ``extra`` (beyond their
        sum), ``terms`` (their sum) and ``other`` (what neither explains).
    """
    rows = list(zip(*(times[name] for name in PARTS)))
    ratios = [distilled / (student + teacher) for student, teacher, distilled in rows]
    extra = [1e3 * (distilled - student - teacher) for student, teacher, distilled in rows]
    spent = [1e3 * sum(row) for row in zip(*(times[name] for name in terms))]
    return dict(
        ratio=statistics.median(ratios),
        ratio_quartiles=list(quartiles(ratios)),
        extra_ms=statistics.median(extra),
        terms_ms=statistics.median(spent),
        other_ms=statistics.median(a - b for a, b in zip(extra, spent)),
    )


def memory_bound(peaks, weights):
    """The distilled step's memory beside what it is allowed, in MiB.

    A step's memory is its weights and the peak above them. Allowed are the student's, the teachers' weights, what
    the taps match, and ``MARGIN``.

    Args:
        peaks (dict[str, float | None]): By part.
        weights (dict[str, float]): Of :meth:`StepCost.memory`.
    """
    if None in (peaks['student'], peaks['distilled']):
        return None
    base = weights['student'] + weights['teachers']
    allowed = (base + weights['matched'] + peaks['student']) * MARGIN
    used = base + peaks['distilled']
    return dict(used=used, allowed=allowed, ratio=used / allowed)
