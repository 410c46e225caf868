r"""When a term acts, and how strongly: a factor on it over the training.

.. math::
    f(t) = 0 \;(t < b),\quad
    \frac{t - b}{w} \;(b \le t < b + w),\quad
    d\!\left(\frac{t - b - w}{e - b - w}\right) \;(b + w \le t < e),\quad
    f_e \;(t \ge e)

with b = ``begin``, w = ``warmup``, e = ``end``, f_e = ``final`` (0 where nothing decays) and d from 1 down to
``final``: constant, a line, or half a cosine. There is no counter here: t comes from MMEngine's MessageHub.
"""

import math

from mmengine.logging import MessageHub, print_log

from kd_ext.errors import is_number, near_matches, value_error

DEFAULTS = dict(begin=0, warmup=0, decay=None, end=None, final=0.0, by_epoch=False)
DECAYS = ('linear', 'cosine')


class Schedule:
    """The factor of an entry of ``distill``, in [0, 1].

    t is the runner's iteration, or with ``by_epoch`` iterations divided by those of an epoch, so that a warm-up of
    one epoch rises within it. The runner writes it before each step: it is the same on every process, what a
    resumed runner had, and not moved by passes outside the training. Where nothing trains, no iteration is known
    and the factor is 1.

    Args:
        name (str): Of the entry, for messages.
        begin (float): The term is off before.
        warmup (float): Time from factor 0 to factor 1.
        decay (str, optional): ``'linear'`` or ``'cosine'``, after the warm-up until ``end``.
        end (float, optional): Where ``final`` is reached; without ``decay`` the term is off from there.
        final (float): Factor after a decay, in [0, 1].
        by_epoch (bool): Whether times are epochs, fractions allowed, or iterations.

    Raises:
        ValueError: A time or a factor is out of its range.
    """

    def __init__(self, name, begin=0, warmup=0, decay=None, end=None, final=0.0, by_epoch=False):
        self.place = f'distill.{name}.schedule'
        if not isinstance(by_epoch, bool):
            self._refuse('by_epoch', 'True or False', by_epoch)
        self.by_epoch = by_epoch
        self.begin = self._time('begin', begin)
        self.warmup = self._time('warmup', warmup)
        self.end = None if end is None else self._time('end', end)
        if decay is not None and decay not in DECAYS:
            self._refuse('decay', f'None or one of {", ".join(DECAYS)}', decay)
        if not is_number(final) or not 0 <= final <= 1:
            self._refuse('final', 'a number in [0, 1]', final)
        if decay is None and final:
            self._refuse('final', 'left out without decay', final, "Say decay='linear' or decay='cosine'.")
        if decay is not None and end is None:
            self._refuse('end', f'given with decay={decay!r}', end, 'It is where final is reached.')
        self.decay, self.final = decay, float(final)
        if self.end is not None and self.end <= self.begin + self.warmup:
            self._refuse('end', f'after begin + warmup = {self.begin + self.warmup}', end)
        self._fits = False

    @classmethod
    def of(cls, name, cfg):
        """From ``schedule=`` of an entry, a dict or None."""
        if cfg is not None and not isinstance(cfg, dict):
            raise value_error(f'distill.{name}.schedule', f'a dict of {", ".join(DEFAULTS)}', repr(cfg))
        for key in cfg or {}:
            if key not in DEFAULTS:
                raise value_error(
                    f'distill.{name}.schedule',
                    f'made of {", ".join(DEFAULTS)}',
                    repr(key),
                    near_matches(key, DEFAULTS),
                )
        return cls(name, **(cfg or {}))

    def _refuse(self, key, rule, value, remedy=''):
        raise value_error(f'{self.place}.{key}', rule, repr(value), remedy)

    def _time(self, key, value):
        whole = self.by_epoch or isinstance(value, int)
        if not is_number(value) or value < 0 or not whole:
            self._refuse(
                key,
                'a number of epochs >= 0' if self.by_epoch else 'a whole number of iterations >= 0',
                value,
                '' if self.by_epoch or not is_number(value) or value < 0 else 'by_epoch=True takes fractions.',
            )
        return value

    def factor(self):
        """f at the iteration that runs now."""
        now = self._now()
        return 1.0 if now is None else self.at(now)

    def at(self, now):
        """f at a time."""
        if now < self.begin:
            return 0.0
        if self.end is not None and now >= self.end:
            return self.final
        full = self.begin + self.warmup
        if now < full:
            return (now - self.begin) / self.warmup
        if self.decay is None:
            return 1.0
        past = (now - full) / (self.end - full)
        if self.decay == 'cosine':
            past = (1 - math.cos(math.pi * past)) / 2
        return 1 + (self.final - 1) * past

    def _now(self):
        """t, or None where no runner trains."""
        info = MessageHub.get_current_instance().runtime_info
        now, last = info.get('iter'), info.get('max_iters')
        if now is None or (self.by_epoch and not last):
            return None
        if self.by_epoch:
            # exactly whole at the start of an epoch
            now, last = now * info['max_epochs'] / last, info['max_epochs']
        if last and not self._fits and self.begin >= last:
            print_log(
                f'{self.place}: begins at {self.begin} of {last} '
                f'{"epochs" if self.by_epoch else "iterations"}: the '
                'term never acts',
                'current',
                30,
            )
        self._fits = True
        return now
