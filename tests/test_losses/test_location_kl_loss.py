"""KL of a dense head's scores at all locations."""

import pytest
import torch

from kd_ext.losses.location_kl_loss import LocationKLLoss, location_kl_loss
from tests.helpers.tiny_detectors import distill, fcos, losses


def levels(seed, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, size, size, generator=generator, dtype=torch.double) * 3 for size in (6, 3)]


def by_hand(students, teachers, tau):
    """The formula, cell by cell."""
    total = weights = 0.0
    for student, teacher in zip(students, teachers):
        for b, y, x in torch.cartesian_prod(torch.arange(2), *2 * [torch.arange(student.shape[-1])]):
            p, q = (logits[b, :, y, x].div(tau).sigmoid() for logits in (teacher, student))
            divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()
            weight = teacher[b, :, y, x].sigmoid().max()
            total, weights = total + weight * divergence, weights + weight
    return total * tau**2 / weights


@pytest.mark.parametrize('tau', [1.0, 2.5])
def test_formula(tau):
    student, teacher = levels(0), levels(1)
    torch.testing.assert_close(location_kl_loss(student, teacher, tau), by_hand(student, teacher, tau))


def test_gradient():
    student, teacher = [one.requires_grad_() for one in levels(0)], levels(1)
    assert torch.autograd.gradcheck(lambda *found: location_kl_loss(found, teacher, 2.0), student)
    twins = [one.clone().requires_grad_() for one in teacher]
    location_kl_loss(student, twins).backward()
    assert all(one.grad is None for one in twins)


def test_equal_scores_cost_nothing_and_extreme_ones_stay_finite():
    student = [one.requires_grad_() for one in levels(0)]
    assert float(location_kl_loss(student, student)) == 0
    far = [one.detach().sign() * 1e4 for one in student]
    loss = location_kl_loss(student, far)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(one.grad).all() for one in student)
    nothing = [torch.full_like(one, -1e4) for one in student]  # a teacher that sees no object
    assert float(location_kl_loss(student, nothing)) == 0


def test_weights_follow_the_teachers_confidence():
    student, teacher = [torch.zeros(1, 2, 1, 2)], [torch.tensor([[[[4.0, -8.0]], [[-4.0, -8.0]]]])]
    sure = location_kl_loss([student[0][..., :1]], [teacher[0][..., :1]])
    # the cell that the teacher takes for background hardly counts, though its scores differ more
    torch.testing.assert_close(location_kl_loss(student, teacher), sure, rtol=2e-3, atol=0)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match='shape'):
        location_kl_loss([torch.rand(1, 3, 4, 4)], [torch.rand(1, 2, 4, 4)])
    with pytest.raises(ValueError, match='tau'):
        LocationKLLoss(tau=0)


def test_in_a_detector():
    entry = dict(type='kd_ext.LocationKLLoss', at='bbox_head.conv_cls')
    model = distill(teacher=fcos(8), kl=entry)
    found = losses(model)
    found['distill.loss_kl'].backward()
    weight = model.student.bbox_head.conv_cls.weight
    assert float(found['distill.loss_kl']) > 0 and float(weight.grad.abs().sum()) > 0
    assert not list(model.distiller.parameters())
