"""Second derivatives and torch.compile: right, or refused."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from kd_ext.losses import NCKDLoss
from kd_ext.losses.spectral import stage_sigmas
from tests.helpers.loss_calls import LOSSES, Batch, D, K, value_of

ONCE = [name for name in LOSSES if 'CKA' in name or 'Lipschitz' in name]
SHAPES = dict(
    maps=[(4, 2, 4, 4)] * 2,
    logits=[(4, 3)] * 2,
    stages=[(4, 2, 4, 4), (4, 3, 2, 2)] * 2,
    images=[(4, 2, 4, 4), (4, 3, 2, 2)] * 2,
    pyramid=[(2, 2, 4, 4), (2, 3, 2, 2), (2, 3, 4, 4), (2, 2, 2, 2)],
    regions=[(4, D)] * 2,
)


def batch_for(name):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES[LOSSES[name].kind]]
    half = len(tensors) // 2
    means = torch.randn(K + 1, D, generator=generator, dtype=torch.float64)
    return Batch(tuple(tensors[:half]), tuple(tensors[half:]), torch.arange(4) % (K + 1), means)


@pytest.mark.parametrize('name', LOSSES)
def test_a_second_derivative_is_right_or_refused(name):
    batch = batch_for(name)
    leaves = tuple(tensor.requires_grad_() for tensor in batch.student)

    def value(*student):
        return value_of(name, batch._replace(student=student))

    grads = torch.autograd.grad(value(*leaves), leaves, create_graph=True)
    assert all(grad.requires_grad for grad in grads)
    penalty = sum(grad.square().sum() for grad in grads)
    if name in ONCE:
        with pytest.raises(RuntimeError, match=r'differentiated once, but got .*create_graph=True'):
            penalty.backward()
    else:
        penalty.backward()
        assert torch.autograd.gradgradcheck(value, leaves, atol=1e-4)


def test_sigma_alone_is_no_exception():
    stages = [torch.rand(1, 2, 4, 4, requires_grad=True), torch.rand(1, 3, 2, 2)]
    (grad,) = torch.autograd.grad(stage_sigmas(stages).sum(), stages[0], create_graph=True)
    with pytest.raises(RuntimeError, match='differentiated once'):
        grad.sum().backward()


@pytest.mark.parametrize('name', ['RCKA intra', 'KL', 'ND', 'Lipschitz'])
def test_a_second_backward_through_a_retained_graph(name):
    batch = batch_for(name)
    leaves = tuple(tensor.requires_grad_() for tensor in batch.student)
    value = value_of(name, batch)
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(value, leaves)):
        assert_close(one, other)


class Student(nn.Module):
    def __init__(self, part):
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.part = nn.Linear(8, 8), part
        self.loss = NCKDLoss(num_classes=5, width=8)

    def forward(self, features, labels, means):
        return self.loss(self.layer(features), labels, means)[self.part]


@pytest.mark.parametrize('part', ['nc1', 'nc2'])
def test_compiled_nckd_has_the_gradient_of_eager(part):
    torch.manual_seed(0)
    features, means = torch.rand(9, 8), torch.rand(6, 8)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 5, 5, 2])
    eager, student = Student(part), Student(part)
    torch._dynamo.reset()
    compiled = torch.compile(student, backend='aot_eager')
    for step in range(1, 4):  # the running means move, and so does the share of a batch
        values = []
        for model, call in ((eager, eager), (student, compiled)):
            model.zero_grad()
            values.append(call(step * features, labels, means))
            values[-1].backward()
        assert_close(*values)
        assert_close(student.layer.weight.grad, eager.layer.weight.grad)
        assert_close(student.loss.student_means, eager.loss.student_means)
        assert torch.equal(student.loss.student_counts, eager.loss.student_counts)
