"""The focal loss against mmdet's own in torch, and by hand; mmcv compiles none for the CPU."""

import math

import pytest
import torch
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from kd_ext.ops.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward


def loss_and_grad(logits, target, gamma=2.0, alpha=0.25, weight=()):
    out, grad = torch.zeros_like(logits), torch.zeros_like(logits)
    arguments = (logits, target, torch.tensor(weight, dtype=logits.dtype))
    sigmoid_focal_loss_forward(*arguments, out, gamma=gamma, alpha=alpha)
    sigmoid_focal_loss_backward(*arguments, grad, gamma=gamma, alpha=alpha)
    return out, grad


def test_by_hand():
    out, _ = loss_and_grad(torch.zeros(1, 2), torch.tensor([1]))
    # p = 1/2: -(1 - alpha) / 4 * log(1/2) and -alpha / 4 * log(1/2)
    torch.testing.assert_close(out, torch.tensor([[0.75, 0.25]]) / 4 * math.log(2))


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
@pytest.mark.parametrize('scale', [1.0, 4.0])
def test_equals_that_of_mmdet(gamma, scale):
    logits = (torch.randn(40, 5, dtype=torch.float64) * scale).requires_grad_()
    target = torch.randint(0, 6, (40,))  # 5 is the background
    wanted = py_sigmoid_focal_loss(
        logits, torch.nn.functional.one_hot(target, 6)[:, :5], gamma=gamma, alpha=0.3, reduction='none'
    )
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), logits)
    out, grad = loss_and_grad(logits.detach(), target, gamma, 0.3)
    torch.testing.assert_close(out, wanted.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(grad, wanted_grad, atol=1e-5, rtol=0)


def test_weights_and_no_rows():
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    plain, weighted = loss_and_grad(logits, target), loss_and_grad(logits, target, weight=(1.0, 2.0, 0.0))
    for a, b in zip(plain, weighted):
        torch.testing.assert_close(a * torch.tensor([1.0, 2.0, 0.0, 2.0])[:, None], b)
    assert loss_and_grad(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))[0].shape == (0, 3)


@pytest.mark.parametrize('logit', [-1000.0, 1000.0])
def test_stays_finite(logit):
    out, grad = loss_and_grad(torch.full((2, 1), logit), torch.tensor([0, 1]))
    assert out.isfinite().all() and grad.isfinite().all()
