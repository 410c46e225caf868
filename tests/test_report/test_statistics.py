"""Intervals, power and words, against values worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from kd_ext.report.statistics import paired


def test_interval_by_hand():
    # mean 3, s = sqrt(10 / 4) = 1.58114, s / sqrt(5) = 0.70711; t(0.975, 4) = 2.77645, t(0.8, 4) = 0.94096
    found = paired([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0 and found.count == 5
    assert found.low == pytest.approx(3 - 1.96324, abs=1e-4)
    assert found.high == pytest.approx(3 + 1.96324, abs=1e-4)
    assert found.smallest == pytest.approx((2.77645 + 0.94096) * 0.70711, abs=1e-4)


def test_two_pairs_by_hand():
    # s = sqrt(2), s / sqrt(2) = 1; t(0.975, 1) = tan(0.475 pi) = 12.7062, t(0.8, 1) = tan(0.3 pi) = 1.37638
    found = paired([4.0, 6.0])
    assert found.high - found.mean == pytest.approx(math.tan(0.475 * math.pi), rel=1e-6)
    assert found.smallest == pytest.approx(math.tan(0.475 * math.pi) + math.tan(0.3 * math.pi), rel=1e-6)


def test_agrees_with_a_paired_t_test():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 5), rng.normal(0.8, 1, 5)
    interval = stats.ttest_rel(other, one).confidence_interval(0.95)
    found = paired((other - one).tolist())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_smallest_gain_is_found_with_the_stated_power():
    """Against the exact power of the t-test, which the approximation meets to a few percent."""
    found = paired([1.0, 2.0, 3.0, 4.0, 5.0])
    error = math.sqrt(2.5 / 5)
    limit = stats.t.ppf(0.975, 4)
    power = stats.nct.sf(limit, 4, found.smallest / error)
    assert power == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(
    'differences,word', [([1.0, 1.2, 0.9], 'helps'), ([-1.0, -1.2, -0.9], 'harms'), ([1.0, -1.0, 0.1], 'not resolved')]
)
def test_words(differences, word):
    assert paired(differences).verdict == word


def test_equal_differences_have_no_width():
    assert paired([2.0, 2.0]).verdict == 'helps' and paired([0.0, 0.0]).verdict == 'not resolved'


@pytest.mark.parametrize('differences,said', [([], '0'), ([1.0], '1'), ([1.0, float('nan')], 'finite')])
def test_what_cannot_be_compared(differences, said):
    with pytest.raises(ValueError, match=said):
        paired(differences)
