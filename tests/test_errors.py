"""What is a number, in one place for every setting."""

import pytest

from kd_ext.errors import is_number
from kd_ext.losses import RCKALoss
from kd_ext.losses.kl_loss import check_temperature
from kd_ext.recipes import distill_entries
from kd_ext.terms.weighting import Weighting

NUMBERS = [0, 1, -2.5, 10**300, 1e308]
OTHERS = [True, False, None, '1', float('nan'), float('inf'), -float('inf'), 10**400, -(10**400), [1.0]]


def test_numbers():
    assert all(map(is_number, NUMBERS))
    assert not any(map(is_number, OTHERS))


@pytest.mark.parametrize('value', OTHERS, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize(
    'use',
    [
        lambda value: RCKALoss(loss_weight=value),
        check_temperature,
        lambda value: Weighting('kd', balance=value),
        lambda value: Weighting('kd', dict(warmup=value)),
        lambda value: distill_entries([f'rcka:{value}']),
    ],
    ids=['weight', 'tau', 'balance', 'schedule', 'factor'],
)
def test_settings_refuse_what_is_no_number(use, value):
    if value is None or value == '1':
        return  # left out, and a factor as it is typed
    with pytest.raises(ValueError, match='Expected'):
        use(value)
