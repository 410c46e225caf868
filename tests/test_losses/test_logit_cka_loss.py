import pytest
import torch
from torch.testing import assert_close

from kd_ext.losses import LogitCKALoss, logit_cka_loss
from kd_ext.registry import MODELS

SETTINGS = [
    (intra, inter, center) for center in (False, True) for intra, inter in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0))
]


def logits(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradient(student, teacher, *args):
    student = student.clone().requires_grad_()
    loss = logit_cka_loss(student, teacher, *args)
    loss.backward()
    return loss.detach(), student.grad


def naive_cka(x, y, center):
    """The definition with H and the whole N x N Grams."""
    h = torch.eye(len(x), dtype=x.dtype) - (1 / len(x) if center else 0)
    k_x, k_y = h @ x @ x.T @ h, h @ y @ y.T @ h
    return (k_x * k_y).sum() / (k_x.norm() * k_y.norm())


def naive(student, teacher, intra, inter, center):
    if student.dim() == 4:  # every pixel is a sample
        student, teacher = (
            torch.stack(
                [m[b, :, i, j] for b in range(m.shape[0]) for i in range(m.shape[2]) for j in range(m.shape[3])]
            )
            for m in (student, teacher)
        )
    return intra * (1 - naive_cka(student, teacher, center)) + inter * (1 - naive_cka(student.T, teacher.T, center))


def test_hand_worked():
    # X = I, Y = diag(1, 2): K_X = I, K_Y = diag(1, 4),
    # CKA = 5 / (r2 r17), over samples and over classes
    student, teacher = torch.eye(2), torch.diag(torch.tensor([1.0, 2.0]))
    assert_close(logit_cka_loss(student, teacher, 2.0, 3.0, False), torch.tensor(5 * (1 - 5 / 34**0.5)))
    # samples (1, 0), (1, 0) against (1, 0), (0, 1), not centred:
    # over samples <1 1^T, I> / (2 r2) = 1 / r2;
    # over classes <diag(2, 0), I> / (2 r2) = 1 / r2
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        assert_close(logit_cka_loss(student, torch.eye(2), *weights, False), torch.tensor(1 - 0.5**0.5))


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('shape', [(12, 5), (4, 9), (2, 4, 3, 5)])
def test_definition(shape, setting):
    student, teacher = (logits(seed, *shape, dtype=torch.float64) for seed in (0, 1))
    leaf = student.clone().requires_grad_()
    wanted = naive(leaf, teacher, *setting)
    (exact,) = torch.autograd.grad(wanted, leaf)
    loss, grad = gradient(student, teacher, *setting)
    assert_close(loss, wanted.detach())
    assert_close(grad, exact)


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('shape', [(6, 3), (1, 3, 2, 3)])
def test_gradcheck(shape, setting):
    student = logits(0, *shape, dtype=torch.float64).requires_grad_()
    teacher = logits(1, *shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda leaf: logit_cka_loss(leaf, teacher, *setting), student)


def test_a_map_is_its_pixels():
    student, teacher = logits(0, 2, 4, 3, 5), logits(1, 2, 4, 3, 5)
    pixels = [m.permute(0, 2, 3, 1).reshape(-1, 4) for m in (student, teacher)]
    assert_close(logit_cka_loss(student, teacher), logit_cka_loss(*pixels))


@pytest.mark.parametrize('setting', SETTINGS)
def test_invariances(setting):
    student, teacher = logits(0, 12, 5), logits(1, 12, 5)
    loss = logit_cka_loss(student, teacher, *setting)

    def same(student, teacher):
        assert_close(logit_cka_loss(student, teacher, *setting), loss)

    samples, classes = torch.randperm(12), torch.randperm(5)
    same(student[samples], teacher[samples])
    same(student[:, classes], teacher[:, classes])
    same(1e-4 * student, 1e4 * teacher)
    same(student.repeat(3, 1), teacher.repeat(3, 1))
    if setting[2]:
        same(student + 10, teacher - 10)


@pytest.mark.parametrize('setting', SETTINGS)
def test_zero_at_identity(setting):
    loss, grad = gradient(2 * logits(0, 12, 5), logits(0, 12, 5), *setting)
    assert loss.abs() < 1e-5 and grad.abs().max() < 1e-5


def test_logits_at_the_start_of_training():
    # a bias of -4.6 on every class (a prior of 0.01), differences of 0.01
    student, teacher = (0.01 * logits(seed, 64, 8) - 4.6 for seed in (0, 1))
    leaf = student.double().requires_grad_()
    wanted = naive(leaf, teacher.double(), 1.0, 1.0, True)
    (exact,) = torch.autograd.grad(wanted, leaf)
    loss, grad = gradient(student, teacher, 1.0, 1.0, True)
    assert_close(loss.double(), wanted.detach(), rtol=1e-4, atol=0)
    assert (grad - exact).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('value', [0.0, 1.0, -4.6])
def test_constant_logits(value, setting):
    loss, grad = gradient(torch.full((12, 5), value), logits(1, 12, 5), *setting)
    assert loss.isfinite() and grad.isfinite().all()
    if setting[2] or value == 0:
        assert_close(loss, torch.tensor(sum(setting[:2])))
        assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    student, teacher = (50 * logits(seed, 300, 5).to(dtype) for seed in (0, 1))
    with torch.autocast('cpu', torch.bfloat16):
        loss, grad = gradient(student, teacher)
    assert loss.dtype == torch.float32 and grad.dtype == dtype
    assert grad.isfinite().all() and grad.any()
    assert_close(loss, logit_cka_loss(student.float(), teacher.float()))


def test_a_whole_cityscapes_map():
    # the N x N Gram of the definition would take a terabyte
    student, teacher = (logits(seed, 2, 19, 512, 1024) for seed in (0, 1))
    loss, grad = gradient(student, teacher, 1.0, 1.0, True)
    # independent logits: every alignment of samples is near 0, of classes
    # near 1, where both Grams are near a multiple of H
    assert 0.99 < loss < 1.01
    assert grad.shape == student.shape and grad.isfinite().all()


@pytest.mark.parametrize('shape', [(0, 5), (0, 5, 8, 8)])
def test_no_samples(shape):
    empty = torch.zeros(shape, requires_grad=True)
    loss = LogitCKALoss()(empty, torch.zeros(shape))
    loss.backward()
    assert loss == 0 and empty.grad.shape == shape


def test_one_sample():
    # nothing varies over a single sample: no signal, no gradient
    loss, grad = gradient(logits(0, 1, 5), logits(1, 1, 5), 1.0, 0.0, True)
    assert loss == 1 and not grad.any()


def test_gradient_goes_to_the_student_alone():
    student, teacher = (logits(seed, 12, 5).requires_grad_() for seed in (0, 1))
    loss = logit_cka_loss(student, teacher)
    loss.backward()
    assert student.grad.any() and teacher.grad is None
    with torch.no_grad():
        assert_close(logit_cka_loss(student, teacher), loss)


def test_module():
    module = MODELS.build(
        dict(type='kd_ext.LogitCKALoss', intra_weight=2.0, inter_weight=3.0, center=False, loss_weight=4.0)
    )
    student, teacher = logits(0, 12, 5), logits(1, 12, 5)
    assert_close(module(student, teacher), 4 * logit_cka_loss(student, teacher, 2.0, 3.0, False))


@pytest.mark.parametrize('name', ['intra_weight', 'inter_weight', 'loss_weight'])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=f'{name} to be a finite number >= 0'):
        LogitCKALoss(**{name: -1})


def test_no_term():
    with pytest.raises(ValueError, match='inter_weight to be not 0 both'):
        LogitCKALoss(intra_weight=0, inter_weight=0)


@pytest.mark.parametrize(
    'student, teacher, error, match',
    [
        ([1.0], logits(0, 2, 3), TypeError, 'preds_S to be a tensor'),
        (logits(0, 2, 3, 4), logits(0, 2, 3, 4), ValueError, r'tensor \(N, K\)'),
        (logits(0, 2, 3), logits(0, 2, 4), ValueError, 'of one shape'),
        (logits(0, 2, 3), logits(0, 2, 3).long(), ValueError, 'floating-point'),
    ],
)
def test_bad_logits(student, teacher, error, match):
    with pytest.raises(error, match=match):
        LogitCKALoss()(student, teacher)
