r"""The weight of an entry during training: its schedule times its balance.

.. math::
    L' = f(t) \cdot c \cdot L,\quad
    c = b \cdot \frac{\overline{L_{task}}}{\overline{|\sum L|}}

f is the factor of the schedule and b the share of the task loss that ``balance=`` asks for. Bars are running means
over steps and processes. c is detached. With a number of steps, c stays what it is after them: the weight is chosen
once, from what the losses are worth in this training.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_ext.errors import is_number, value_error
from kd_ext.losses.precision import upcast
from kd_ext.terms.schedule import Schedule

EPS = 1e-6
MOMENTUM = 0.1


class Weighting(nn.Module):
    """Multiplies the values of an entry by one factor.

    The running means are plain averages over the first ``1 / MOMENTUM`` steps and exponential ones after that, the
    current step included. They are buffers, so a resumed run continues them, and they are equal on all processes:
    each has to call this in every training step. A step does not count if the term is 0 on all processes (nothing
    to compare) or a value is not finite (AMP skips it too). A sum below ``EPS`` counts as ``EPS``, so a term
    learnt down to rounding errors is not blown up. A term that falls faster than in ``1 / MOMENTUM`` steps stays
    below its share until the means follow.

    Args:
        name: Of the entry.
        schedule: See :class:`Schedule`.
        balance: Share of the task loss that the term keeps, in (0, 10); or ``dict(share=, steps=)`` for a factor
            that follows the losses for so many steps that count, and is then fixed and logged.

    Raises:
        ValueError: A setting is unknown or out of range.
    """

    means: Tensor
    steps: Tensor

    def __init__(self, name: str, schedule: dict[str, Any] | None = None, balance: Any = None) -> None:
        super().__init__()
        self.name = name
        self.balance, self.until = _share_and_steps(f'distill.{name}.balance', balance)
        self.chosen = False
        self.schedule = Schedule.of(name, schedule)
        self.shown = schedule is not None or balance is not None
        if balance is None:
            return
        self.register_buffer('means', torch.zeros(2))  # of task loss and term
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    @property
    def on(self) -> bool:
        """Whether the term acts in the current step."""
        return self.schedule.factor() > 0

    def forward(self, terms: dict[str, Tensor], task_loss: Tensor) -> dict[str, Tensor]:
        """Weighted ``terms`` by log key, and ``factor_<name>`` unless it is always 1; the task loss is a scalar."""
        if not self.shown:
            return terms
        total = upcast(torch.as_tensor(sum(terms.values())).detach())
        factor = torch.full_like(total, self.schedule.factor())
        if self.balance is not None:
            factor = factor * self._balanced(task_loss, total)
        return {**{key: value * factor for key, value in terms.items()}, f'factor_{self.name}': factor}

    def idle(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same keys for values that are off."""
        if not self.shown:
            return terms
        zero = torch.zeros_like(next(iter(terms.values())))
        return {**terms, f'factor_{self.name}': zero.detach()}

    @torch.no_grad()
    def _balanced(self, task_loss: Tensor, total: Tensor) -> Tensor:
        """c after this step; 0 until the term was seen."""
        if self.training and not self.chosen:
            pair = torch.stack([upcast(task_loss.detach()), total.abs()])
            all_reduce(pair, 'mean')
            counts = torch.isfinite(pair).all() & (pair[1] > 0)
            if self.until:  # a resumed run does not move a weight that was chosen before
                counts &= self.steps < self.until
            self.steps += counts
            share = (1 / self.steps.clamp(min=1)).clamp(min=MOMENTUM)
            moved = self.means + share * (pair - self.means)
            self.means.copy_(torch.where(counts, moved, self.means))
        task, term = self.means
        factor = (self.balance or 0) * task / term.clamp(min=EPS)
        # reads the counter, so it waits for the device, but only until the weight is chosen
        if self.training and self.until and not self.chosen and int(self.steps) >= self.until:
            self.chosen = True
            print_log(
                f'distill.{self.name}: factor {float(factor):.4g} chosen after {self.until} steps, for '
                f'{self.balance:g} of the task loss; loss_weight times it, without balance, is the same weight',
                'current',
            )
        return factor


def _share_and_steps(place: str, balance: Any) -> tuple[float | None, int]:
    """Share of the task loss and steps until it is fixed, 0 for never."""
    share, steps = balance, 0
    if isinstance(balance, dict):
        if balance.keys() != {'share', 'steps'}:
            raise value_error(
                place, 'a number or dict(share=, steps=)', repr(balance), 'dict(share=1.5, steps=100), for example.'
            )
        share, steps = balance['share'], balance['steps']
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise value_error(f'{place}.steps', 'an integer >= 1', repr(steps), 'The factor is fixed after them.')
        place = f'{place}.share'
    if balance is not None and (not is_number(share) or not 0 < share < 10):
        raise value_error(
            place,
            'a number > 0 and < 10',
            repr(share),
            'It is the share of the task loss, 0.2 for a fifth; leave it out for a weight that stays.',
        )
    return share, steps
