"""What every loss promises, on shapes, dtypes and layouts of any kind."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.helpers.hypothesis_tries import tries
from tests.helpers.loss_calls import LOSSES, gradients, value_of
from tests.helpers.loss_strategies import HALVES, batch_of, each

every_loss = pytest.mark.parametrize('name', LOSSES)


def drawn(data, name, **settings):
    return data.draw(batch_of(LOSSES[name].kind, **settings))


def assert_near(batch, grads, others):
    """Gradients are close, relative to the larger of two as a whole.

    Where an alignment has its optimum they are rounding errors, of the
    order of one over the features.
    """
    for tensor, one, other in zip(batch.student, grads, others):
        size = torch.maximum(one.norm(), other.norm())
        noise = 1e-12 / tensor.norm() if tensor.any() else 0.0
        assert (one - other).norm() <= 1e-5 * size + noise


@every_loss
@tries(40)
@given(data=st.data())
def test_value_and_gradient(name, data):
    batch = drawn(data, name)
    before = [(tensor, tensor.clone(), tensor._version) for tensor in (*batch.student, *batch.teacher)]
    value, grads = gradients(name, batch)
    assert value.dim() == 0 and value.isfinite() and value > -1e-5
    assert value.dtype in (torch.float32, torch.float64)
    for tensor, grad in zip(batch.student, grads):
        assert grad.shape == tensor.shape and grad.dtype == tensor.dtype
        # a gradient may be too large for fp16; it is looked at below
        assert grad.dtype == torch.float16 or grad.isfinite().all()
    for tensor, copy, version in before:
        assert torch.equal(tensor, copy) and tensor._version == version


@every_loss
@tries(10)
@given(data=st.data())
def test_gradient_goes_to_the_student_alone(name, data):
    batch = drawn(data, name)
    others = [tensor.detach().requires_grad_() for tensor in batch.teacher]
    means = batch.means
    if means is not None:
        means = means.detach().requires_grad_()
        others.append(means)
    student = tuple(tensor.detach().requires_grad_() for tensor in batch.student)
    value_of(
        name, batch._replace(student=student, teacher=tuple(others[: len(batch.teacher)]), means=means)
    ).backward()
    assert all(leaf.grad is None for leaf in others)
    assert all(leaf.grad is not None for leaf in student)


@every_loss
@tries(20)
@given(data=st.data())
def test_layout_changes_nothing(name, data):
    batch = drawn(data, name, dtype=torch.float64)
    plain = each(batch, lambda tensor: tensor.clone(memory_format=torch.contiguous_format))
    value, grads = gradients(name, batch)
    wanted, exact = gradients(name, plain)
    assert_close(value, wanted, rtol=1e-7, atol=1e-9)
    assert_near(batch, grads, exact)


@every_loss
@tries(20)
@given(data=st.data())
def test_half_precision_is_that_of_the_same_values_in_full(name, data):
    batch = drawn(data, name, dtype=data.draw(st.sampled_from(HALVES)))
    value, grads = gradients(name, batch)
    wanted, exact = gradients(name, each(batch, torch.Tensor.float))
    assert value.dtype == torch.float32
    assert_close(value, wanted)
    assert all(grad.isfinite().all() for grad in exact)
    for grad, other in zip(grads, exact):
        assert_close(grad, other.to(grad.dtype))


# without ReviewKD: its BN makes values of the rounding of a constant channel
@pytest.mark.parametrize('name', [name for name in LOSSES if name != 'ReviewKD'])
@tries(20)
@given(data=st.data())
def test_single_precision_is_near_double(name, data):
    batch = drawn(data, name, dtype=torch.float32, exponents=(-2, 2))
    value = value_of(name, batch)
    exact = value_of(name, each(batch, torch.Tensor.double))
    assert_close(value.double(), exact.double(), rtol=1e-4, atol=1e-4)


@every_loss
@tries(20)
@given(data=st.data())
def test_order_of_images_and_regions(name, data):
    batch = drawn(data, name, dtype=torch.float64)
    order = torch.randperm(len(batch.student[0]))
    if len({len(tensor) for tensor in batch.student}) > 1:
        order = None  # levels of batches of their own

    def turn(tensor):
        return tensor.flip(0) if order is None else tensor[order]

    turned = each(batch, turn)
    if batch.labels is not None:
        turned = turned._replace(labels=turn(batch.labels))
    value, grads = gradients(name, batch)
    wanted, others = gradients(name, turned)
    assert_close(value, wanted, rtol=1e-7, atol=1e-9)
    assert_near(turned, map(turn, grads), others)


@pytest.mark.parametrize('name', [name for name, loss in LOSSES.items() if loss.floor is not None])
@tries(20)
@given(data=st.data())
def test_floor_at_identity(name, data):
    batch = drawn(data, name, dtype=torch.float64)
    twins = data.draw(st.sampled_from((batch.student, batch.teacher)))
    value, grads = gradients(name, batch._replace(student=twins, teacher=twins))
    assert abs(value - LOSSES[name].floor) < 1e-7
    assert all((grad.abs() < 1e-6).all() for grad in grads)


@every_loss
@tries(10)
@given(data=st.data())
def test_nothing_to_compare(name, data):
    batch = drawn(data, name)
    empty = each(batch, lambda tensor: tensor[:0])
    if batch.labels is not None:
        empty = empty._replace(labels=batch.labels[:0])
    value, grads = gradients(name, empty)
    assert value == 0 and value.dtype in (torch.float32, torch.float64)
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in empty.student]
