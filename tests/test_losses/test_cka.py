import pytest
import torch
from torch.testing import assert_close

from kd_ext.losses.cka import Task, alignment_grad, alignment_loss

TASKS = [
    Task(rows, columns, center) for center in (False, True) for rows, columns in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0))
]


def rows(seed, shape=(3, 4, 6), dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def cka(x, y, center):
    """The definition, with H and both whole Gram matrices."""
    size = len(x)
    h = torch.eye(size, dtype=x.dtype)
    if center:
        h = h - 1 / size
    k_x, k_y = h @ x @ x.T @ h, h @ y @ y.T @ h
    return (k_x * k_y).sum() / (k_x.norm() * k_y.norm())


def naive(x, y, task):
    return sum(
        task.rows * (1 - cka(a, b, task.center)) + task.columns * (1 - cka(a.T, b.T, task.center))
        for a, b in zip(x, y)
    )


def value(x, y, task):
    return alignment_loss(x, y, task)[0]


def test_hand_worked():
    # X = I, Y = diag(1, 2): K_X = I, K_Y = diag(1, 4):
    # CKA = (1 + 4) / (r2 * r17) = 5 / r34; X is square and symmetric, so
    # rows and columns agree: 2 + 3 of them
    x, y = torch.eye(2)[None], torch.diag(torch.tensor([1.0, 2.0]))[None]
    assert_close(value(x, y, Task(2.0, 3.0, False)), torch.tensor(5 * (1 - 5 / 34**0.5)))
    # centred, K of two rows is a multiple of [[1, -1], [-1, 1]]: CKA = 1
    assert value(x, y, Task(2.0, 3.0, True)).abs() < 1e-6
    # rows (1, 0), (0, 1), (0, 0) against (1, 0), (0, 1), (1, 1), centred:
    # H K H of both is symmetric under swapping the first two rows;
    # K_X = diag(1, 1, 0), HK_XH = [[5, -4, -1], [-4, 5, -1], [-1, -1, 2]]/9
    # K_Y = [[1, 0, 1], [0, 1, 1], [1, 1, 2]],
    # HK_YH = [[5, -4, -1], [-4, 5, -1], [-1, -1, 2]]/9: CKA = 1
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    y = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    assert value(x, y, Task(1.0, 0.0, True)).abs() < 1e-6
    # not centred: <K_X, K_Y> = 2, ||K_X|| = r2, ||K_Y|| = r10
    assert_close(value(x, y, Task(1.0, 0.0, False)), torch.tensor(1 - 2 / 20**0.5))


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('shape', [(3, 4, 6), (2, 6, 3), (1, 5, 5)])
def test_definition(task, shape):
    x, y = rows(0, shape), rows(1, shape)
    assert_close(value(x, y, task), naive(x, y, task))
    assert_close(value(x.float(), y.float(), task), naive(x, y, task).float())


@pytest.mark.parametrize('task', TASKS)
def test_terms_give_the_gradient(task):
    x, y = rows(0).requires_grad_(), rows(1)
    (wanted,) = torch.autograd.grad(naive(x, y, task), x)
    x = x.detach()
    _, terms = alignment_loss(x, y, task)
    assert_close(alignment_grad(terms), wanted)


@pytest.mark.parametrize('task', TASKS)
def test_invariances(task):
    x, y = rows(0), rows(1)
    loss = value(x, y, task)
    assert_close(value(7 * x, y / 3, task), loss)
    assert_close(value(x.flip(0), y.flip(0), task), loss)
    # the same order of rows and of columns in both
    order = torch.randperm(4), torch.randperm(6)
    assert_close(value(x[:, order[0]][..., order[1]], y[:, order[0]][..., order[1]], task), loss)
    # columns (rows) turned by any rotation, where rows (columns) are compared
    turn = torch.linalg.qr(rows(2, (6, 6)))[0]
    if not task.columns:
        assert_close(value(x @ turn, y, task), loss)
    if task.center:
        # a constant changes nothing, large as it may be
        assert_close(value(x + 1e3, y - 1e3, task), loss)


@pytest.mark.parametrize('task', TASKS)
def test_zero_at_identity(task):
    assert value(rows(0), rows(0), task).abs() < 1e-9
    assert value(rows(0), 2 * rows(0), task).abs() < 1e-9


@pytest.mark.parametrize('scale', [1e-4, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize('task', TASKS)
def test_scale(task, scale):
    x, y = rows(0, dtype=torch.float32), rows(1, dtype=torch.float32)
    loss, terms = alignment_loss(scale * x, y, task)
    grad = alignment_grad(terms)
    _, exact = alignment_loss(x, y, task)
    assert_close(loss, naive(x.double(), y.double(), task).float())
    assert_close(grad * scale, alignment_grad(exact))


@pytest.mark.parametrize('offset', [-4.6, 100.0])
@pytest.mark.parametrize('task', [t for t in TASKS if t.center])
def test_small_differences_on_a_large_mean(task, offset):
    # logits at the start of training: a bias of -4.6, differences of 0.01
    x, y = ((0.01 * rows(seed) + offset).float() for seed in (0, 1))
    loss, terms = alignment_loss(x, y, task)
    leaf = x.double().requires_grad_()
    wanted = naive(leaf, y.double(), task)
    (grad,) = torch.autograd.grad(wanted, leaf)
    assert_close(loss.double(), wanted, rtol=1e-4, atol=0)
    error = alignment_grad(terms) - grad
    assert error.norm() < 1e-2 * grad.norm()


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('dead', [torch.zeros(4, 6), torch.full((4, 6), 1e-8)], ids=['zero', 'tiny'])
def test_no_signal_is_no_alignment_and_no_gradient(task, dead):
    for x, y in ((dead, rows(1)[0].float()), (rows(0)[0].float(), dead), (dead, dead)):
        loss, terms = alignment_loss(x[None], y[None], task)
        grad = alignment_grad(terms)
        assert_close(loss, torch.tensor(task.rows + task.columns))
        assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize('task', [t for t in TASKS if t.center])
@pytest.mark.parametrize('constant', [0.1, 1.0, 1e3])
def test_rounding_noise_is_no_signal(task, constant):
    # 1e-7 of the constant, as a resize of a constant map leaves it
    noise = 1 + 1e-7 * torch.rand(3, 4, 6)
    for x, y in ((constant * noise, rows(1).float()), (rows(0).float(), constant * noise)):
        loss, terms = alignment_loss(x, y, task)
        grad = alignment_grad(terms)
        assert_close(loss, torch.tensor(3 * (task.rows + task.columns)))
        assert torch.equal(grad, torch.zeros_like(grad))
