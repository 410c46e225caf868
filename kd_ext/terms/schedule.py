r"""When a term acts, and how strongly: a factor on it over the training.

.. math::
    f(t) = 0 \;(t < b),\quad
    \frac{t - b}{w} \;(b \le t < b + w),\quad
    d(t) \;(b + w \le t < e),\quad
    f_e \;(t \ge e)

with b = ``begin``, w = ``warmup``, e = ``end``, f_e = ``final`` (0 unless a line or a cosine ends there) and

* no ``decay``: d = 1,
* ``'linear'``, ``'cosine'``: d goes from 1 to ``final`` by a line or half a cosine,
* ``'step'``: d = 1, and from ``milestones[k]`` on ``factors[k]``, which may be above 1.

There is no counter here: t comes from MMEngine's MessageHub.
"""

from __future__ import annotations

import math
from logging import WARNING
from typing import Any, Sequence

from mmengine.logging import MessageHub, print_log

from kd_ext.errors import check_keys, is_number, value_error

KEYS = ('begin', 'warmup', 'decay', 'end', 'final', 'milestones', 'factors', 'by_epoch')
DECAYS = ('linear', 'cosine', 'step')


class Schedule:
    """The factor of an entry of ``distill``.

    t is the runner's iteration or, with ``by_epoch``, iterations divided by those of an epoch, so that a warm-up
    of one epoch rises within it. The runner writes the iteration before each step, so t is the same on all
    processes, survives resuming, and ignores passes outside the training. Outside a training the factor is 1.

    Args:
        name: Of the entry, for messages.
        begin: Time before which the term is off.
        warmup: Time in which the factor rises from 0 to 1.
        decay: ``'linear'``, ``'cosine'`` or ``'step'``, after the warm-up.
        end: Time at which a line or a cosine reaches ``final``; with other decays the term is off from then on.
        final: Factor after a line or a cosine, in [0, 1].
        milestones: Increasing times at which ``'step'`` changes the factor.
        factors: The factor from each milestone on, >= 0.
        by_epoch: Whether times are epochs, fractions included, or iterations.

    Raises:
        ValueError: A time or a factor is out of range.
    """

    def __init__(
        self,
        name: str,
        begin: float = 0,
        warmup: float = 0,
        decay: str | None = None,
        end: float | None = None,
        final: float = 0.0,
        milestones: Sequence[float] = (),
        factors: Sequence[float] = (),
        by_epoch: bool = False,
    ) -> None:
        self.place = f'distill.{name}.schedule'
        if not isinstance(by_epoch, bool):
            raise self._wrong('by_epoch', 'True or False', by_epoch)
        self.by_epoch = by_epoch
        self.begin, self.warmup = self._time('begin', begin), self._time('warmup', warmup)
        self.end = math.inf if end is None else self._time('end', end)
        if decay is not None and decay not in DECAYS:
            raise self._wrong('decay', f'None or one of {", ".join(DECAYS)}', decay)
        self.decay, full = decay, self.begin + self.warmup
        if not is_number(final) or not 0 <= final <= 1:
            raise self._wrong('final', 'a number in [0, 1]', final)
        fades = decay in ('linear', 'cosine')
        if final and not fades:
            raise self._wrong('final', "left out without decay='linear' or 'cosine'", final)
        if fades and end is None:
            raise self._wrong('end', f'given with decay={decay!r}', end, 'It is where final is reached.')
        self.final, self.steps = float(final), self._steps(milestones, factors)
        if self.end <= (self.steps[-1][0] if self.steps else full):
            rule = 'after the last milestone' if self.steps else f'after begin + warmup = {full}'
            raise self._wrong('end', rule, end)
        self._fits = False

    @classmethod
    def of(cls, name: str, cfg: dict[str, Any] | None) -> Schedule:
        """Builds the schedule of ``schedule=``, a dict or None."""
        if cfg is not None and not isinstance(cfg, dict):
            raise value_error(f'distill.{name}.schedule', f'a dict of {", ".join(KEYS)}', repr(cfg))
        check_keys(f'distill.{name}.schedule', cfg or {}, KEYS)
        return cls(name, **(cfg or {}))

    def _wrong(self, key: str, rule: str, value: Any, remedy: str = '') -> ValueError:
        return value_error(f'{self.place}.{key}', rule, repr(value), remedy)

    def _time(self, key: str, value: Any) -> float:
        if is_number(value) and value >= 0 and (self.by_epoch or isinstance(value, int)):
            return value
        rule = 'a number of epochs >= 0' if self.by_epoch else 'a whole number of iterations >= 0'
        raise self._wrong(key, rule, value, 'by_epoch=True takes fractions.' if isinstance(value, float) else '')

    def _steps(self, milestones: Any, factors: Any) -> list[tuple[float, float]]:
        """Milestones with their factors."""
        if self.decay != 'step':
            for key, values in (('milestones', milestones), ('factors', factors)):
                if not isinstance(values, (tuple, list)) or values:
                    raise self._wrong(key, "left out without decay='step'", values)
            return []
        if not isinstance(milestones, (tuple, list)) or not milestones:
            raise self._wrong('milestones', "a list of times with decay='step'", milestones)
        full, times = self.begin + self.warmup, [self._time('milestones', time) for time in milestones]
        if times[0] < full or any(a >= b for a, b in zip(times, times[1:])):
            raise self._wrong('milestones', f'rising, from begin + warmup = {full} on', milestones)
        many = isinstance(factors, (tuple, list)) and len(factors) == len(times)
        if not many or not all(is_number(factor) and factor >= 0 for factor in factors):
            raise self._wrong('factors', f'{len(times)} numbers >= 0, one per milestone', factors)
        return list(zip(times, factors))

    def factor(self) -> float:
        """f at the iteration that runs now."""
        now = self._now()
        return 1.0 if now is None else self.at(now)

    def at(self, now: float) -> float:
        """f at a time."""
        full = self.begin + self.warmup
        if now < self.begin:
            return 0.0
        if now >= self.end:
            return self.final
        if now < full:
            return (now - self.begin) / self.warmup
        if self.decay in (None, 'step'):
            return float(next((factor for time, factor in reversed(self.steps) if now >= time), 1.0))
        past = (now - full) / (self.end - full)
        if self.decay == 'cosine':
            past = (1 - math.cos(math.pi * past)) / 2
        return 1 + (self.final - 1) * past

    def _now(self) -> float | None:
        """t, or None where no runner trains."""
        info = MessageHub.get_current_instance().runtime_info
        now, last = info.get('iter'), info.get('max_iters')
        if now is None or (self.by_epoch and not last):
            return None
        if self.by_epoch:
            # exactly whole at the start of an epoch
            now, last = now * info['max_epochs'] / last, info['max_epochs']
        if last and not self._fits and self.begin >= last:
            unit = 'epochs' if self.by_epoch else 'iterations'
            text = f'{self.place}: begins at {self.begin} of {last} {unit}: the term never acts'
            print_log(text, 'current', WARNING)
        self._fits = True
        return now
