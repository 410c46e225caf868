"""Measures each term in one training step of a distillation."""

from __future__ import annotations

import functools
import math
from typing import Any, Iterator

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from kd_ext.data.regions import unaugmented
from kd_ext.errors import explaining, is_ours
from kd_ext.preflight.finding import Finding, fatal, warning
from kd_ext.preflight.timing import cost

DWARFS, VANISHES = 0.5, 1e-3


class StepCheck:
    """Values, shares and gradients of all terms in one training step.

    Args:
        model: A DetectionDistill in training mode.
        batch: Collated, not preprocessed.

    Raises:
        ValueError: The student fails on the batch even without distillation.
    """

    def __init__(self, model: Any, batch: dict) -> None:
        self.model = model
        with unaugmented(model.data_preprocessor):
            self.batch = model.data_preprocessor(batch, True)
        losses = self._losses()
        self.total = float(model.parse_losses(losses)[0].detach())
        self.terms = {
            key[len('distill.loss_') :]: value for key, value in losses.items() if key.startswith('distill.loss_')
        }
        task = model.parse_losses({key: value for key, value in losses.items() if key.startswith('student.')})[0]
        parameters = [p for p in model.student.parameters() if p.requires_grad]
        self.task = float(task.detach())
        self.task_gradient = _norm(task, parameters)
        self.gradients = {name: _norm(value, parameters) for name, value in self.terms.items()}
        self.values = {name: float(value.detach()) for name, value in self.terms.items()}

    def _losses(self) -> dict:
        try:
            return self.model(**self.batch, mode='loss')
        except Exception as error:
            if not is_ours(error):
                self._try_student()
            raise

    def _try_student(self) -> None:
        student, rule = self.model.student, 'a detector that trains on these images without distillation'
        remedy = 'Correct model.student or its data: train the plain detector first.'
        with explaining(f'the student {type(student).__name__}', rule, remedy=remedy):
            student(**self.batch, mode='loss')

    def rows(self) -> Iterator[tuple[str, float, float, float]]:
        """``(term, value, share, gradient norm)`` for a table."""
        yield 'task loss', self.task, self.task / self.total, self.task_gradient
        for name, value in self.values.items():
            yield name, value, value / self.total, self.gradients[name]

    def findings(self) -> Iterator[Finding]:
        """Findings on terms that do not teach, or that are out of proportion."""
        for name, value in self.values.items():
            share, gradient = value / self.total, self.gradients[name]
            if not (math.isfinite(value) and math.isfinite(gradient)):
                yield fatal(f'{name} is {value} with a gradient of norm {gradient} in the first step.')
            elif self._weight(name) == 0:
                yield warning(f'{name} has a loss_weight of 0 and teaches nothing: raise it, or leave the entry out.')
            elif gradient == 0 and value:
                yield fatal(f'{name} gives the student no gradient: it cannot teach.')
            elif gradient == 0:
                rest = 'in this step: these images hold nothing for it to compare.'
                yield warning(f'{name} gives the student no gradient {rest}')
            elif share > DWARFS:
                yield warning(f'{name} is {share:.0%} of the total loss and dwarfs the task: lower its loss_weight.')
            elif share < VANISHES and gradient < VANISHES * self.task_gradient:
                rest = 'of the total loss and its gradient as small: raise its loss_weight.'
                yield warning(f'{name} is {share:.1e} {rest}')

    def _weight(self, name: str) -> float | None:
        """The loss_weight of the entry that a term belongs to."""
        terms = self.model.distiller.terms
        entry = max((one for one in terms if f'{name}_'.startswith(f'{one}_')), key=len)
        return getattr(terms[entry].loss, 'loss_weight', None)

    def costs(self) -> dict[str, tuple[float, float | None]]:
        """Seconds and MiB of one step of the student alone, and of one distilled step."""

        def step(model: Any, batch: dict) -> None:
            losses = model(**batch, mode='loss')
            model.parse_losses(losses)[0].backward()
            model.zero_grad(set_to_none=True)

        return {
            name: cost(functools.partial(step, model, self.batch))
            for name, model in (('student alone', self.model.student), ('distilled', self.model))
        }


def _norm(value: torch.Tensor, parameters: list[torch.Tensor]) -> float:
    """Norm of the gradient of ``value`` with respect to ``parameters``."""
    if not value.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    norms = [g.norm() for g in gradients if g is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def build(cfg: Config) -> Any:
    """Builds a config's model as the runner would."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
    model.init_weights()
    return model
