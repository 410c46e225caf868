"""FCKA: images of a batch compared with one another, whatever the widths."""

import pytest
import torch
from torch.testing import assert_close

from kd_ext.losses import FeatureCKALoss, LogitCKALoss, feature_cka_loss, logit_cka_loss
from kd_ext.registry import MODELS
from tests.helpers import tiny_detectors as tiny

CENTER = pytest.mark.parametrize('center', [False, True])


def maps(seed=0, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def naive(student, teacher, center, transposed=False):
    """1 - CKA of the flattened images, or of their values, from whole Gram matrices."""
    grams = []
    for features in (student, teacher):
        rows = features.flatten(1).T if transposed else features.flatten(1)
        if center:
            rows = rows - rows.mean(0)
        grams.append(rows @ rows.T)
    return 1 - (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())


@CENTER
def test_naive(center):
    student, teacher = maps(0, 5, 3, 4, 6), maps(1, 5, 7, 2, 3)
    assert_close(feature_cka_loss(student, teacher, center), naive(student, teacher, center))
    leaf = student.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(naive(leaf, teacher, center), leaf)
    (grad,) = torch.autograd.grad(feature_cka_loss(leaf, teacher, center), leaf)
    assert_close(grad, wanted)


def test_hand_worked():
    # two images: rows (1, 0), (0, 2) and (1, 0), (1, 0): Grams diag(1, 4) and all ones
    # <K_X, K_Y> = 5, norms sqrt(17) and 2: 1 - 5 / (2 sqrt(17)) = 0.39366
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert_close(feature_cka_loss(student, teacher, center=False), torch.tensor(1 - 5 / (2 * 17**0.5)))


@CENTER
def test_gradcheck(center):
    student, teacher = maps(0, 3, 2, 2, 2).requires_grad_(), maps(1, 3, 4, 1, 2)
    assert torch.autograd.gradcheck(lambda one: feature_cka_loss(one, teacher, center), student)


@CENTER
def test_logits_over_images(center):
    # intra: B x B Grams of flattened images; inter: the (K H W) x (K H W) ones of the released code
    student, teacher = maps(0, 4, 3, 2, 5), maps(1, 4, 3, 2, 5)
    for intra, inter in ((1.0, 0.0), (0.0, 1.0), (2.0, 0.5)):
        loss = logit_cka_loss(student, teacher, intra, inter, center, samples='images')
        wanted = intra * naive(student, teacher, center) + inter * naive(student, teacher, center, transposed=True)
        assert_close(loss, wanted)
    leaf = student.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda one: logit_cka_loss(one, teacher, 2.0, 0.5, center, 'images'), leaf)
    # pixels are other samples, but rows of logits are the same ones
    assert not torch.isclose(loss, logit_cka_loss(student, teacher, 2.0, 0.5, center))
    rows = student[:, :, 0, 0], teacher[:, :, 0, 0]
    assert_close(
        logit_cka_loss(*rows, center=center, samples='images'), logit_cka_loss(*rows, center=center, samples='pixels')
    )


def test_one_image_has_no_relations():
    student = maps(0, 1, 3, 4, 4).requires_grad_()
    loss = feature_cka_loss(student, maps(1, 1, 5, 2, 2))
    loss.backward()
    assert loss == 1 and not student.grad.any()


@pytest.mark.parametrize('at', ['neck', 'backbone'])
def test_other_widths_need_no_projector(at):
    model = tiny.distill(
        tiny.fcos(), tiny.fcos(8, width=24), fcka=dict(type='kd_ext.FeatureCKALoss', at=at, center=False)
    )
    value = tiny.losses(model.train())['distill.loss_fcka']
    value.backward()
    assert value > 0 and not list(model.distiller.parameters())
    assert model.student.backbone.conv1.weight.grad.any()


def test_module_and_errors():
    student, teacher = maps(0, 4, 3, 2, 2), maps(1, 4, 5, 2, 2)
    loss = MODELS.build(dict(type='kd_ext.FeatureCKALoss', center=False, loss_weight=2.0))
    assert_close(loss((student, student), (teacher, teacher)), 4 * feature_cka_loss(student, teacher, False))
    with pytest.raises(ValueError, match='of one batch size, but got 4 and 3'):
        feature_cka_loss(student, teacher[:3])
    with pytest.raises(ValueError, match=r'preds_T to be .*\(B, C, H, W\) or \(B, D\)'):
        feature_cka_loss(student, teacher[0])
    with pytest.raises(TypeError, match='preds_S to be a tensor'):
        feature_cka_loss(None, teacher)
    with pytest.raises(ValueError, match="samples to be one of 'pixels', 'images', but got 'rows'"):
        LogitCKALoss(samples='rows')
    with pytest.raises(ValueError, match='center'):
        FeatureCKALoss(center=None)
