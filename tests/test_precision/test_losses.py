"""fp16 and bf16 features through every loss, from scale 1e-4 to 1e4.

Shapes: two maps of 8 channels, three stages, 64 regions or rows of logits.
"""

import pytest
import torch
from torch.testing import assert_close

from tests.helpers.loss_calls import LOSSES, Batch, D, K, gradients, value_of

HALVES = torch.float16, torch.bfloat16
SCALES = 1e-4, 1e-2, 1.0, 1e2, 1e4
SHAPES = dict(
    maps=[(2, 8, 24, 32), (2, 8, 12, 16)],
    logits=[(64, 8)],
    stages=[(2, 8, 32, 24), (2, 16, 16, 12), (2, 32, 8, 6)],
    images=[(8, 8, 12, 16), (8, 16, 6, 8)],
    pyramid=[(2, 2, 24, 32), (2, 3, 12, 16)],
    regions=[(64, D)],
)
TEACHER = dict(SHAPES, pyramid=[(2, 3, 24, 32), (2, 2, 12, 16)])
# relative errors against fp32 on unrounded features, of the value and of the
# gradient's norm: for fp16 and for bf16. About twice the largest measured; a
# half's own rounding error is 5e-4 and 4e-3
USUAL = dict(value=(2e-4, 1e-3), grad=(1e-3, 6e-3))
TOLERANCES = dict.fromkeys(LOSSES, USUAL)
# probabilities of large logits; sigma_S - sigma_T, which is squared
TOLERANCES['KL'] = dict(USUAL, grad=(4e-3, 1.5e-2))
# the same difference, of logits near 0, which are coarse in fp16; measured 1.2e-3
TOLERANCES['KL at all locations'] = dict(USUAL, grad=(2.4e-3, 6e-3))
for _name in ('Lipschitz', 'relative Lipschitz'):
    TOLERANCES[_name] = dict(value=(2.5e-3, 1.5e-2), grad=(3e-3, 2.5e-2))
# a small loss: 1 minus a number near 1, and norms near those of the teacher
for _name in ('feature CKA', 'feature CKA, not centred'):
    TOLERANCES[_name] = dict(value=(2e-4, 5e-3), grad=(1.5e-3, 1.2e-2))
TOLERANCES['ND, norm'] = dict(USUAL, value=(3e-4, 2.5e-3))
# of logits near 0, KL is a difference of numbers near log 2 or log K
ROUNDING = {'KL': 1e-7, 'KL of sigmoids': 1e-7, 'KL at all locations': 1e-7}


def features(kind, scale):
    """Student and teacher with a correlation of 1/2, and class means.

    Of one another's, where their widths differ, they know nothing.
    """
    generator = torch.Generator().manual_seed(0)
    sides = [], []
    for shapes in zip(SHAPES[kind], TEACHER[kind]):
        common = torch.randn(shapes[0], generator=generator)
        for side, shape in zip(sides, shapes):
            own = torch.randn(shape, generator=generator)
            if shape == shapes[0]:
                own = (common + own) / 2**0.5
            side.append((scale * own).clamp(-6e4, 6e4))
    means = scale * torch.randn(K + 1, D, generator=generator)
    return Batch(*map(tuple, sides), torch.arange(64) % (K + 1), means)


def rounded(batch, *dtypes):
    for dtype in dtypes:
        batch = batch._replace(
            **{side: tuple(tensor.to(dtype) for tensor in getattr(batch, side)) for side in ('student', 'teacher')}
        )
    return batch


@pytest.mark.parametrize('half', [0, 1], ids=['fp16', 'bf16'])
@pytest.mark.parametrize('name', LOSSES)
def test_near_fp32(name, half):
    limits, dtype = TOLERANCES[name], HALVES[half]
    for scale in SCALES:
        batch = features(LOSSES[name].kind, scale)
        value, grads = gradients(name, batch)
        low, low_grads = gradients(name, rounded(batch, dtype, torch.float32))
        assert_close(low, value, rtol=limits['value'][half], atol=ROUNDING.get(name, 0.0))
        for grad, wanted in zip(low_grads, grads):
            error = (grad - wanted).norm()
            assert error <= limits['grad'][half] * wanted.norm(), scale


@pytest.mark.parametrize('half', [0, 1], ids=['fp16', 'bf16'])
@pytest.mark.parametrize('name', LOSSES)
def test_computes_in_fp32(name, half):
    dtype = HALVES[half]
    for scale in SCALES:
        batch = rounded(features(LOSSES[name].kind, scale), dtype)
        value, grads = gradients(name, batch)
        wanted, exact = gradients(name, rounded(batch, torch.float32))
        assert value.dtype == torch.float32 and value.isfinite()
        assert torch.equal(value, wanted)
        for grad, full in zip(grads, exact):
            assert full.isfinite().all()
            # inf where it is too large for fp16 and nowhere else
            assert grad.dtype == dtype and torch.equal(grad, full.to(dtype))


@pytest.mark.parametrize('dtype', HALVES, ids=['fp16', 'bf16'])
@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_scale_of_65536(name, dtype):
    """As of a fresh GradScaler: no overflow in fp32 at any scale, nor in fp16
    features of scale 1."""
    kind = LOSSES[name].kind
    for scale in SCALES:
        batch = rounded(features(kind, scale), dtype, torch.float32)
        assert all(grad.isfinite().all() for grad in outside(name, batch)[1])
    batch = rounded(features(kind, 1.0), dtype)
    assert all(grad.isfinite().all() for grad in outside(name, batch)[1])


def outside(name, batch, autocast=False, scale=65536.0):
    """The loss, perhaps under autocast, and its gradients outside of it."""
    leaves = tuple(tensor.detach().requires_grad_() for tensor in batch.student)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        value = value_of(name, batch._replace(student=leaves))
    return value.detach(), torch.autograd.grad(scale * value, leaves)


# ReviewKD's layers are a network, which DetectionDistill runs outside of it
@pytest.mark.parametrize('name', sorted(LOSSES.keys() - {'ReviewKD'}))
def test_autocast_changes_nothing(name):
    batch = features(LOSSES[name].kind, 1.0)
    (value, grads), (wanted, exact) = (outside(name, batch, autocast) for autocast in (True, False))
    assert torch.equal(value, wanted)
    assert all(map(torch.equal, grads, exact))
