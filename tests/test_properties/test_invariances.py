"""What may be done to the features without changing each loss, and how much
a change of their scale changes it."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.testing import assert_close

from kd_ext.losses import feature_cka_loss, logit_cka_loss
from tests.helpers.hypothesis_tries import tries
from tests.helpers.loss_calls import LOSSES, value_of
from tests.helpers.loss_strategies import batch_of, each

ALIGNED = [name for name, loss in LOSSES.items() if loss.scales]
# each of the two alignments on its own
HALVES_OF_LOGIT_CKA = {'logit CKA of samples': dict(inter_weight=0.0), 'logit CKA of classes': dict(intra_weight=0.0)}


def rotation(width, generator):
    """A random orthogonal matrix."""
    return torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]


def _mix(tensor, matrix):
    """Channels, or the columns of (N, D), times a matrix."""
    return torch.einsum('nc...,cd->nd...', tensor, matrix)


def _of_student(change):
    return lambda batch, *args: batch._replace(student=tuple(change(tensor, *args) for tensor in batch.student))


def _of_teacher(change):
    return lambda batch, *args: batch._replace(teacher=tuple(change(tensor, *args) for tensor in batch.teacher))


def _of_all(change):
    return lambda batch, *args: each(batch, lambda tensor: change(tensor, *args))


def _scaled(tensor, factor, generator):
    return tensor * factor


def _shifted(tensor, factor, generator):
    return tensor + factor


def _seen_shifted(tensor, factor, generator):
    """Rows of zeros stay: in class means they are classes never seen."""
    return tensor + factor * tensor.any(1, keepdim=True)


def _rotated(tensor, factor, generator):
    return _mix(tensor, rotation(tensor.shape[1], generator))


def _by_channel(tensor, factor, generator):
    """Each channel times a factor of its own."""
    factors = 0.5 + torch.rand(tensor.shape[1], generator=generator, dtype=torch.float64)
    return _mix(tensor, torch.diag(factors * factor))


def _flipped(tensor, factor, generator):
    return tensor.flip(-1)


def _channels_turned(tensor, factor, generator):
    return tensor.roll(1, 1)


def _rows_shifted(tensor, factor, generator):
    return tensor + torch.randn(len(tensor), 1, generator=generator, dtype=torch.float64)


def _rows_scaled(tensor, factor, generator):
    """Made longer than any teacher's embedding, by factors of their own."""
    return tensor * 1e4 * (1 + torch.rand(len(tensor), 1, generator=generator, dtype=torch.float64))


def _means_scaled(batch, factor, generator):
    factors = 0.5 + torch.rand(len(batch.means), 1, generator=generator, dtype=torch.float64)
    return batch._replace(means=batch.means.double() * factors)


def _space_rotated(batch, factor, generator):
    matrix = rotation(batch.means.shape[1], generator)
    turned = each(batch, lambda tensor: _mix(tensor, matrix))
    return turned._replace(means=batch.means.double() @ matrix)


def _space_moved(batch, factor, generator):
    offset = torch.randn(batch.means.shape[1], generator=generator, dtype=torch.float64)
    seen = batch.means.norm(dim=1, keepdim=True) > 0  # zero: never seen
    return each(batch, lambda tensor: tensor + offset)._replace(means=batch.means.double() + offset * seen)


def case(names, change, power=0):
    """``change`` multiplies these losses by the factor to a power."""
    names = [names] if isinstance(names, str) else names
    return [(name, change, power) for name in names]


RCKA = [name for name in LOSSES if name.startswith('RCKA')]
REGIONS = ['ND', 'ND of foreground, by class', 'ND without teacher', 'NC1']
CASES = {
    'scale of the student': case(ALIGNED, _of_student(_scaled)),
    'scale of the teacher': case(ALIGNED, _of_teacher(_scaled)),
    'scale of a channel': case(RCKA, _of_student(_by_channel)),
    'order of channels': case(
        [*RCKA, 'HCL', 'logit CKA', 'KL', 'logit CKA of maps', 'KL of sigmoids'], _of_all(_channels_turned)
    ),
    'mirrored maps': case(
        [*RCKA[:2], 'HCL', 'logit CKA of maps', 'Lipschitz', 'relative Lipschitz'], _of_all(_flipped)
    ),
    'one shift of all': [
        *case([*RCKA[:2], 'logit CKA', 'logit CKA of maps'], _of_student(_shifted)),
        *case('NC2', _of_student(_seen_shifted)),
    ],
    'shift of both': case('HCL', _of_all(_shifted)),
    'scale of both': [*case('HCL', _of_all(_scaled), 2), *case('Lipschitz', _of_all(_scaled), 4)],
    'shift of a row': case('KL', _of_student(_rows_shifted)),
    'rotation of the student': case(['NC2', 'Lipschitz', 'relative Lipschitz'], _of_student(_rotated)),
    'rotation of the teacher': case(['NC2', 'Lipschitz', 'relative Lipschitz'], _of_teacher(_rotated)),
    'lengths of the class means': case(REGIONS[:2], _means_scaled),
    'rotation of the whole space': case(REGIONS, _space_rotated),
    'move of the whole space': case('NC1', _space_moved),
}
EVERY = [pytest.param(*one, id=f'{what}-{one[0]}') for what, several in CASES.items() for one in several]


@pytest.mark.parametrize('name, change, power', EVERY)
@tries(20)
@given(data=st.data(), factor=st.floats(0.2, 5.0), seed=st.integers(0, 99))
def test_invariance(name, change, power, data, factor, seed):
    batch = data.draw(batch_of(LOSSES[name].kind, dtype=torch.float64, exponents=(-1, 1)))
    generator = torch.Generator().manual_seed(seed)
    value = value_of(name, batch)
    changed = value_of(name, change(batch, factor, generator))
    assert_close(changed, value * factor**power, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('settings', HALVES_OF_LOGIT_CKA.values(), ids=HALVES_OF_LOGIT_CKA)
@pytest.mark.parametrize('center', [False, True])
@tries(20)
@given(data=st.data(), seed=st.integers(0, 99))
def test_logit_cka_under_rotations(settings, center, data, seed):
    """Classes may be mixed where samples are compared, and samples where
    classes are."""
    (student,), (teacher,) = data.draw(batch_of('logits', dtype=torch.float64, exponents=(-1, 1)))[:2]
    generator = torch.Generator().manual_seed(seed)
    if 'inter_weight' in settings:
        turned = student @ rotation(student.shape[1], generator)
    else:
        turned = rotation(len(student), generator) @ student
    assert_close(
        logit_cka_loss(turned, teacher, center=center, **settings),
        logit_cka_loss(student, teacher, center=center, **settings),
        rtol=1e-6,
        atol=1e-7,
    )


@tries(40)
@given(data=st.data(), seed=st.integers(0, 99))
def test_nd_knows_no_student_longer_than_the_teacher(data, seed):
    batch = data.draw(batch_of('regions', dtype=torch.float64, exponents=(-1, 1)))
    generator = torch.Generator().manual_seed(seed)
    longer = _of_student(_rows_scaled)(batch, 1.0, generator)
    longest = _of_student(_scaled)(longer, 3.0, generator)
    assert_close(value_of('ND', longest), value_of('ND', longer))


@pytest.mark.parametrize('center', [False, True])
@tries(40)
@given(data=st.data())
def test_cka_is_a_distance_of_normalised_grams_and_bounds_mmd(center, data):
    """1 - CKA = 1/2 ||K_X/||K_X|| - K_Y/||K_Y|| ||^2 >= P/2 MMD^2 of the rows."""
    (student,), (teacher,) = data.draw(batch_of('logits', dtype=torch.float64, exponents=(-1, 1)))[:2]
    grams = []
    for rows in (student, teacher):
        if center:
            rows = rows - rows.mean(0)
        gram = rows @ rows.mT
        assume(gram.norm() > 1e-3)  # without any signal nothing is normalised
        grams.append(gram / gram.norm())
    loss = feature_cka_loss(student, teacher, center)
    assert_close(loss, (grams[0] - grams[1]).square().sum() / 2, rtol=1e-6, atol=1e-7)
    mmd = (grams[0].mean(0) - grams[1].mean(0)).norm()
    assert loss >= len(student) / 2 * mmd.square() - 1e-7
