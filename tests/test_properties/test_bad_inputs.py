"""Whatever a loss is given: a value, or a message that names the argument."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kd_ext.errors import is_ours
from tests.helpers.hypothesis_tries import tries
from tests.helpers.loss_calls import LOSSES, value_of
from tests.helpers.loss_strategies import batch_of

ARGUMENTS = ('preds_S', 'preds_T', 'labels', 'class_means', 'student_means', 'stages')
# what one tensor may become
TENSORS = dict(
    flat=torch.Tensor.flatten,
    scalar=torch.Tensor.sum,
    deeper=lambda tensor: tensor[None],
    shallower=lambda tensor: tensor[0],
    wider=lambda tensor: torch.cat([tensor, tensor], 1),
    longer=lambda tensor: torch.cat([tensor, tensor]),
    larger=lambda tensor: torch.cat([tensor, tensor], -1),
    no_channels=lambda tensor: tensor[:, :0],
    no_columns=lambda tensor: tensor[..., :0],
    whole_numbers=torch.Tensor.long,
    truth_values=torch.Tensor.bool,
    complex=lambda tensor: tensor.to(torch.complex64),
    array=lambda tensor: tensor.float().numpy(),
    numbers=torch.Tensor.tolist,
    pair=lambda tensor: (tensor, tensor),
    nothing=lambda tensor: None,
    text=lambda tensor: 'neck',
    number=lambda tensor: 3,
)
# what the levels of a side may become
SIDES = dict(
    none=lambda levels: (),
    one_more=lambda levels: (*levels, levels[-1]),
    one_less=lambda levels: levels[1:],
    a_list=list,
    nothing=lambda levels: None,
    a_number=lambda levels: 3,
    text=lambda levels: 'neck',
    a_dict=lambda levels: dict(enumerate(levels)),
)


def _spoilt(batch, data, kind):
    """A batch with one thing about it changed, and what."""
    fields = ['student', 'teacher']
    if kind == 'regions':
        fields += ['labels', 'means']
    field = data.draw(st.sampled_from(fields))
    value = getattr(batch, field)
    if field in ('labels', 'means'):
        how = data.draw(st.sampled_from(sorted(TENSORS)))
        return _changed(batch, field, value, how)
    index = data.draw(st.integers(0, len(value) - 1))
    how = data.draw(st.sampled_from(sorted(TENSORS)))
    levels = list(value)
    try:
        levels[index] = TENSORS[how](levels[index])
    except (IndexError, TypeError, RuntimeError):
        return None
    return batch._replace(**{field: tuple(levels)})


def _changed(batch, field, value, how):
    try:
        return batch._replace(**{field: TENSORS[how](value)})
    except (IndexError, TypeError, RuntimeError):
        return None  # a label has no such form


def _check(name, batch):
    try:
        value = value_of(name, batch)
    except (ValueError, TypeError) as error:
        assert is_ours(error), f'{type(error).__name__}: {error}'
        assert any(word in str(error) for word in ARGUMENTS), error
    else:
        assert value.isfinite()


@pytest.mark.parametrize('name', LOSSES)
@tries(80)
@given(data=st.data())
def test_one_tensor_is_wrong(name, data):
    kind = LOSSES[name].kind
    batch = _spoilt(data.draw(batch_of(kind)), data, kind)
    if batch is not None:
        _check(name, batch)


@pytest.mark.parametrize('name', ['RCKA intra', 'Lipschitz', 'ReviewKD'])
@tries(40)
@given(data=st.data())
def test_the_levels_are_wrong(name, data):
    batch = data.draw(batch_of(LOSSES[name].kind))
    field = data.draw(st.sampled_from(['student', 'teacher']))
    how = data.draw(st.sampled_from(sorted(SIDES)))
    _check(name, batch._replace(**{field: SIDES[how](getattr(batch, field))}))
