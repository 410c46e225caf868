r"""What paired seeds say about a difference.

.. math::
    \bar d \pm t_{0.975, n-1} \frac{s_d}{\sqrt n},\qquad
    g_{min} = (t_{0.975, n-1} + t_{0.8, n-1}) \frac{s_d}{\sqrt n}

d are the n differences between an arm and the student alone with the same seed, s_d their standard deviation.
g_min is the smallest gain that a two-sided test at the 5% level finds with a power of 0.8, in the usual
approximation by two quantiles of Student's t.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

from kd_ext.errors import value_error

LEVEL, POWER = 0.95, 0.8
HELPS, HARMS, OPEN = 'helps', 'harms', 'not resolved'


@dataclass(frozen=True)
class Paired:
    """A mean paired difference with its interval.

    Attributes:
        mean, low, high: Of the difference; the interval has the level :data:`LEVEL`.
        smallest: The smallest gain that these seeds could have shown.
        count: Pairs.
    """

    mean: float
    low: float
    high: float
    smallest: float
    count: int

    @property
    def verdict(self) -> str:
        """``helps`` where the interval lies above 0, ``harms`` where it lies below, otherwise ``not resolved``."""
        if self.low > 0:
            return HELPS
        return HARMS if self.high < 0 else OPEN


def paired(differences: Sequence[float]) -> Paired:
    """The :class:`Paired` of at least two differences.

    Raises:
        ValueError: There are fewer than two, or one is not finite.
    """
    count = len(differences)
    if count < 2:
        raise value_error('differences', 'at least two, one for each seed', str(count), 'Run more seeds.')
    if not all(map(math.isfinite, differences)):
        raise value_error('differences', 'finite numbers', repr(list(differences)))
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    half = student_t.ppf((1 + LEVEL) / 2, count - 1) * error
    smallest = half + student_t.ppf(POWER, count - 1) * error
    return Paired(mean, mean - float(half), mean + float(half), float(smallest), count)
