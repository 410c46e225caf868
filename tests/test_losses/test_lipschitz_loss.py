import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from kd_ext.losses import spectral, waiting
from kd_ext.losses.lipschitz_loss import LipschitzLoss, lipschitz_loss
from kd_ext.losses.spectral import stage_sigmas
from kd_ext.registry import MODELS
from tests.helpers.data_sets import REFERENCE

ARRAYS = REFERENCE / 'lipschitz.npz'
SIZES = (4, 12, 16), (6, 6, 8), (8, 3, 4)


def stages(seed, sizes=SIZES, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *size, generator=generator, dtype=dtype) for size in sizes)


def leaves(maps):
    return tuple(value.clone().requires_grad_() for value in maps)


def matrices(maps):
    """Every M_k, formed cell by cell."""
    for low, high in zip(maps, maps[1:]):
        h, w = high.shape[-2:]
        pooled = F.adaptive_avg_pool2d(low, (h, w))
        yield sum(pooled[:, :, i, j, None] * high[:, None, :, i, j] for i in range(h) for j in range(w)) / (h * w)


def oracle(student, teacher, relative=False):
    """The formula with formed matrices and an SVD, in float64."""
    total, n = 0.0, len(student)
    pairs = zip(matrices([value.double() for value in student]), matrices([value.double() for value in teacher]))
    for k, (m_S, m_T) in enumerate(pairs, 1):
        sigma_S, sigma_T = (torch.linalg.svdvals(m)[:, 0] for m in (m_S, m_T))
        error = sigma_S - sigma_T
        if relative:
            error = error / (sigma_T + 1e-6)
        total = total + 2.0 ** -(n - k) * error.square().mean()
    return total


def assert_gradients_close(got, wanted, tolerance):
    for ours, exact in zip(got, wanted):
        assert (ours.grad - exact.grad).norm() <= tolerance * exact.grad.norm()


@pytest.fixture
def arrays():
    arrays = np.load(ARRAYS)
    return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}


@pytest.mark.parametrize('model', ['student', 'teacher'])
def test_sigma_of_the_reference(arrays, model):
    exact = torch.stack([arrays[f'{model}_sigma_exact_{k}'] for k in range(3)])
    maps = [arrays[f'{model}_{k}'] for k in range(4)]
    assert_close(stage_sigmas(maps).double(), exact, rtol=1e-3, atol=0)
    # what the default is worth: it takes 8 steps to 1e-3, 5 plain ones reach
    # 1e-1
    assert_close(stage_sigmas(maps).double(), exact, rtol=1e-5, atol=0)
    assert_close(stage_sigmas(maps, 8).double(), exact, rtol=1e-3, atol=0)
    if model == 'teacher':
        seven = stage_sigmas(maps, 7).double()
        assert ((seven - exact).abs() > 1e-3 * exact).any()


def test_loss_of_the_reference(arrays):
    student, teacher = ([arrays[f'{model}_{k}'] for k in range(4)] for model in ('student', 'teacher'))
    loss = lipschitz_loss(student, teacher)
    assert_close(loss.double(), arrays['loss_exact'], rtol=1e-5, atol=0)


def test_gradient_of_the_reference(arrays):
    teacher = [arrays[f'teacher_{k}'] for k in range(4)]
    ours = leaves([arrays[f'student_{k}'] for k in range(4)])
    exact = leaves([arrays[f'student_{k}'].double() for k in range(4)])
    lipschitz_loss(ours, teacher).backward()
    oracle(exact, teacher).backward()
    assert_gradients_close(ours, exact, 1e-4)


@pytest.mark.parametrize('num_iters', [100, None])
@pytest.mark.parametrize('seed', range(3))
def test_the_iteration_stops_where_the_gradient_is_exact(seed, num_iters):
    # Gaussian stages have no leading direction: 10 steps leave the gradient some 10 % off, and a stop by sigma 1e-3
    maps = stages(seed, ((256, 16, 16), (512, 8, 8)))
    exact = leaves([value.double() for value in maps])
    wanted = torch.autograd.grad(sum(torch.linalg.svdvals(m)[:, 0].sum() for m in matrices(exact)), exact)

    def error(steps):
        ours = leaves(maps)
        grads = torch.autograd.grad(stage_sigmas(ours, steps).sum(), ours)
        return max(float((grad - one).norm() / one.norm()) for grad, one in zip(grads, wanted))

    assert error(num_iters) < 1e-4
    assert error(10) > 0.05


def test_the_iteration_stops_early(monkeypatch):
    from kd_ext.losses import spectral

    steps = []
    monkeypatch.setattr(
        spectral, '_new_part', lambda rows, basis, do=spectral._new_part: steps.append(1) or do(rows, basis)
    )
    # after a ReLU there is a leading direction
    stage_sigmas([value.relu() for value in stages(0, ((256, 16, 16), (512, 8, 8)))], None)
    assert 2 <= len(steps) <= 10


def test_hand_worked():
    # one cell: M = p f^T, sigma = ||p|| ||f||.
    # student p = (3, 4), f = (1, 0): 5; teacher p = (0, 2), f = (0, 1): 2
    # n = 2: L = (5 - 2)^2 / 2 = 4.5; relative: (3 / 2)^2 / 2 = 1.125
    def cell(*values):
        return torch.tensor(values).view(1, -1, 1, 1)

    student, teacher = (cell(3.0, 4.0), cell(1.0, 0.0)), (cell(0.0, 2.0), cell(0.0, 1.0))
    assert_close(lipschitz_loss(student, teacher), torch.tensor(4.5))
    assert_close(lipschitz_loss(student, teacher, relative=True), torch.tensor(1.125))
    # a weight of 3 in place of 1/2
    assert_close(lipschitz_loss(student, teacher, stage_weights=[3.0]), torch.tensor(27.0))
    # d sigma / dp = p ||f|| / ||p|| = (0.6, 0.8); times 2 * 3 / 2
    student = leaves(student)
    lipschitz_loss(student, teacher).backward()
    assert_close(student[0].grad, cell(1.8, 2.4))


@pytest.mark.parametrize('relative', [False, True])
@pytest.mark.parametrize(
    'sizes',
    [SIZES, ((4, 9, 7), (6, 5, 4), (3, 2, 3), (8, 1, 1)), ((8, 6, 6), (3, 6, 6))],
    ids=['halves', 'ragged', 'narrowing'],
)
def test_oracle(sizes, relative):
    ours, exact = leaves(stages(0, sizes)), leaves(stages(0, sizes))
    teacher = stages(1, sizes)
    loss = lipschitz_loss(ours, teacher, relative=relative)
    wanted = oracle(exact, teacher, relative)
    assert_close(loss.double(), wanted, rtol=1e-5, atol=0)
    loss.backward()
    wanted.backward()
    assert_gradients_close(ours, exact, 1e-4)


@pytest.mark.parametrize('relative', [False, True])
def test_gradcheck(relative):
    sizes = (2, 3, 4), (3, 2, 2), (2, 1, 1)
    student = leaves(stages(0, sizes, dtype=torch.float64))
    teacher = stages(1, sizes, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *maps: lipschitz_loss(maps, teacher, relative=relative), student)


def test_equal_stages_give_zero():
    student = leaves(stages(0))
    loss = lipschitz_loss(student, stages(0))
    loss.backward()
    assert loss.abs() < 1e-10
    assert all(maps.grad.abs().max() < 1e-6 for maps in student)


def test_other_widths_and_sizes():
    student = leaves(stages(0))
    teacher = stages(1, ((10, 10, 10), (20, 5, 5), (40, 3, 3)))
    loss = lipschitz_loss(student, teacher)
    assert_close(loss.double(), oracle(student, teacher), rtol=1e-5, atol=0)


def test_zero_features():
    zeros = [torch.zeros(2, *size) for size in SIZES]
    student = leaves(zeros)
    assert torch.equal(stage_sigmas(student), torch.zeros(2, 2))
    lipschitz_loss(student, stages(1)).backward()
    assert all(torch.equal(maps.grad, torch.zeros_like(maps)) for maps in student)
    # a stage of zeros between others, zeros in the teacher, relative to them
    mixed = leaves([zeros[0], *stages(0)[1:]])
    loss = lipschitz_loss(mixed, zeros, relative=True)
    loss.backward()
    assert loss.isfinite() and all(m.grad.isfinite().all() for m in mixed)


@pytest.mark.parametrize('relative', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    'case', ['equal', 'equal cells', 'both zero', 'zeros', 'zero teacher', 'cells', 'a zero cell']
)
def test_corners_are_finite(case, dtype, relative):
    sizes = [(c, 1, 1) for c, _, _ in SIZES] if 'cell' in case else SIZES
    student, teacher = stages(0, sizes), stages(1, sizes)
    if 'equal' in case:
        teacher = student
    if case in ('both zero', 'zeros'):
        student = [maps * 0 for maps in student]
    if case in ('both zero', 'zero teacher'):
        teacher = [maps * 0 for maps in teacher]
    if case == 'a zero cell':
        student = student[0], student[1] * 0, student[2]
    student = leaves([maps.to(dtype) for maps in student])
    loss = lipschitz_loss(student, [maps.to(dtype) for maps in teacher], relative=relative)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    # an error of 1e6, relative to a sigma of 0, has a gradient beyond fp16
    if (case, relative, dtype) != ('zero teacher', True, torch.float16):
        assert all(maps.grad.isfinite().all() for maps in student)
    without_loss = 'equal' in case or case == 'both zero'
    assert bool(loss == 0) == without_loss
    if without_loss or case == 'zeros':
        assert not any(maps.grad.any() for maps in student)


def test_maps_of_one_cell_are_exact_whatever_the_start():
    # rank 1, and p orthogonal to a start vector of ones
    p = torch.tensor([1.0, -1.0, 2.0, -2.0]).view(1, 4, 1, 1)
    f = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert_close(stage_sigmas([p, f]), torch.tensor([[250.0**0.5]]))


def test_more_steps_than_the_matrix_has_rank():
    maps = stages(0, ((2, 4, 4), (3, 2, 2)))
    assert_close(stage_sigmas(maps, 50), stage_sigmas(maps, 2))


def test_invariances():
    maps = stages(0)
    sigma = stage_sigmas(maps)
    shuffled = [value[:, torch.randperm(value.shape[1])] for value in maps]
    assert_close(stage_sigmas(shuffled), sigma)
    flipped = [value.flip(-1, -2) for value in maps]
    assert_close(stage_sigmas(flipped), sigma)
    # sigma is bilinear: a factor of 3 in one stage is a factor of 3
    assert_close(stage_sigmas([3 * maps[0], *maps[1:]])[0], 3 * sigma[0])
    # images do not see each other
    assert_close(stage_sigmas([value[:1] for value in maps]), sigma[:, :1])


@pytest.mark.parametrize('scale', [1e-4, 1e-2, 1e2, 1e4])
def test_scale(scale):
    maps = stages(0)
    student = leaves([scale * value for value in maps])
    sigma = stage_sigmas(student)
    assert_close(sigma, scale**2 * stage_sigmas(maps))
    lipschitz_loss(student, maps).backward()
    assert all(m.grad.isfinite().all() and m.grad.any() for m in student)


@pytest.mark.parametrize('scale', [1e-4, 1e4])
def test_relative_does_not_depend_on_the_scale(scale):
    student, teacher = ([1e3 * value for value in stages(seed)] for seed in (0, 1))
    loss = lipschitz_loss(student, teacher, relative=True)
    scaled = lipschitz_loss([scale * value for value in student], [scale * value for value in teacher], relative=True)
    assert_close(loss, scaled, rtol=1e-3, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    student = leaves([value.to(dtype) for value in stages(0)])
    teacher = [value.to(dtype) for value in stages(1)]
    with torch.autocast('cpu', torch.bfloat16):
        loss = lipschitz_loss(student, teacher)
        loss.backward()
    assert loss.dtype == torch.float32
    assert_close(loss.double(), oracle(student, teacher), rtol=1e-5, atol=0)
    assert all(m.grad.dtype == dtype and m.grad.isfinite().all() for m in student)


def test_non_finite_features_come_out_as_nan():
    # named by the algorithm, not an error from within torch.linalg
    for bad in (float('nan'), float('inf')):
        student = [value.clone() for value in stages(0)]
        student[1][0, 0, 0, 0] = bad
        assert not lipschitz_loss(student, stages(1)).isfinite()


def test_gradients_go_where_they_are_wanted():
    student, teacher = leaves(stages(0)), leaves(stages(1))
    whole = torch.autograd.grad(lipschitz_loss(student, teacher), student)
    assert all(maps.grad is None for maps in teacher)
    # a frozen first stage costs the others nothing
    frozen = (student[0].detach(), *student[1:])
    lipschitz_loss(frozen, teacher).backward()
    assert student[0].grad is None
    for maps, grad in zip(student[1:], whole[1:]):
        assert torch.equal(maps.grad, grad)


def test_deterministic():
    results = []
    for _ in range(2):
        student = leaves(stages(0))
        loss = lipschitz_loss(student, stages(1))
        loss.backward()
        results.append((loss, *(maps.grad for maps in student)))
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_no_images():
    student = leaves([torch.zeros(0, *size) for size in SIZES])
    loss = lipschitz_loss(student, [torch.zeros(0, *size) for size in SIZES])
    loss.backward()
    assert loss == 0


def test_module():
    loss = MODELS.build(dict(type='kd_ext.LipschitzLoss', loss_weight=2.0, relative=True, stage_weights=(1.0, 0.0)))
    assert loss.relates_levels and not list(loss.parameters())
    assert_close(
        loss(stages(0), stages(1)),
        2 * lipschitz_loss(stages(0)[:2], stages(1)[:2], relative=True, stage_weights=(1.0,)),
    )


@pytest.mark.parametrize(
    'kwargs, match',
    [
        (dict(num_iters=0), 'num_iters to be a whole number >= 1, but got 0'),
        (dict(loss_weight=-1), 'loss_weight to be a finite number >= 0'),
        (dict(stage_weights=['a']), 'stage_weights to be a finite number >= 0'),
    ],
)
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        LipschitzLoss(**kwargs)


@pytest.mark.parametrize(
    'student, teacher, error, match',
    [
        (stages(0)[0], stages(1), TypeError, 'preds_S to be a tuple of stage'),
        (stages(0), [None] * 3, TypeError, 'preds_T to be a tuple of stage'),
        (stages(0), stages(1)[:2], ValueError, 'the same number of levels'),
        ((), (), ValueError, 'the same number of levels, at least one'),
        (stages(0)[:1], stages(1)[:1], ValueError, 'at least 2 stages, but got 1'),
        (stages(0), stages(1, batch=3), ValueError, 'of one batch size'),
        (stages(0), [m[0] for m in stages(1)], ValueError, r'preds_T\[0\] to be'),
        ([m.long() for m in stages(0)], stages(1), ValueError, 'floating point'),
    ],
)
def test_bad_stages(student, teacher, error, match):
    with pytest.raises(error, match=match):
        LipschitzLoss()(student, teacher)


def test_wrong_number_of_weights():
    with pytest.raises(ValueError, match='stage_weights to be 2 numbers'):
        lipschitz_loss(stages(0), stages(1), stage_weights=[1.0])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('scale', [1e-7, 1.0, 1e7])
def test_leading_vector_without_waiting(dtype, scale):
    # on a GPU eigh would wait for the device
    generator = torch.Generator().manual_seed(0)
    for steps in (1, 2, 10):
        images = scale * torch.rand(3, steps, 50, generator=generator, dtype=dtype)
        ours, exact = spectral._leading(images), spectral._ritz(images)[1]
        assert_close(ours * (ours * exact).sum(-1, keepdim=True).sign(), exact, rtol=0, atol=1e-5)
    assert not spectral._leading(torch.zeros(2, 4, 9)).any()


def test_the_way_of_a_gpu_gives_the_same(monkeypatch):
    student, teacher = (tuple(maps.relu() for maps in stages(seed)) for seed in (0, 1))
    found = []
    for prompt in ({'cpu'}, set()):
        monkeypatch.setattr(waiting, 'PROMPT', prompt)
        mine = leaves(student)
        lipschitz_loss(mine, teacher).backward()
        found.append([leaf.grad for leaf in mine])
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
