import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from kd_ext.losses import RCKALoss, rcka_loss
from kd_ext.losses.rcka_loss import fitting_patch, patch_rows
from kd_ext.registry import MODELS
from tests.helpers.data_sets import REFERENCE

CKA = importlib.import_module('kd_ext.losses.cka')
# kd_ext.losses.rcka_loss is the function; this is its module
MODULE = importlib.import_module('kd_ext.losses.rcka_loss')
SETTINGS = [
    (intra, inter, center) for center in (False, True) for intra, inter in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0))
]


def maps(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradient(student, teacher, *args):
    student = student.clone().requires_grad_()
    loss = rcka_loss(student, teacher, *args)
    loss.backward()
    return loss.detach(), student.grad


def naive_rows(channel, patch):
    """(B, H, W) -> (P, B p^2), cut patch by patch."""
    height, width = (-(-side // patch) * patch for side in channel.shape[1:])
    channel = F.interpolate(channel[:, None], (height, width), mode='bilinear', align_corners=False)[:, 0]
    return torch.stack(
        [
            channel[:, i : i + patch, j : j + patch].flatten()
            for i in range(0, height, patch)
            for j in range(0, width, patch)
        ]
    )


def naive_cka(x, y, center):
    """The definition with H and whole Grams, (B p^2)^2 for the columns."""
    h = torch.eye(len(x), dtype=x.dtype) - (1 / len(x) if center else 0)
    k_x, k_y = h @ x @ x.T @ h, h @ y @ y.T @ h
    return (k_x * k_y).sum() / (k_x.norm() * k_y.norm())


def naive(student, teacher, patch, intra, inter, center):
    losses = []
    for channel in range(student.shape[1]):
        x, y = (naive_rows(m[:, channel], patch) for m in (student, teacher))
        losses.append(intra * (1 - naive_cka(x, y, center)) + inter * (1 - naive_cka(x.T, y.T, center)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize('name', ['multi_patch', 'ragged'])
@pytest.mark.parametrize('term, inter, shift', [('intra', 0.0, 1.0), ('intra_inter', 1.0, 2.0)])
def test_released_code(name, term, inter, shift):
    file = REFERENCE / f'pcka_{name}.npz'
    arrays = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(file).items()}
    loss, grad = gradient(arrays['student'], arrays['teacher'], 16, 1.0, inter, False)
    # the released loss is -CKA, ours 1 - CKA per term
    assert_close(loss.double(), shift + arrays[f'loss_{term}'], rtol=0, atol=1e-6)
    error = (grad - arrays[f'grad_{term}']).norm()
    assert error < 1e-4 * arrays[f'grad_{term}'].norm()


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('size', [(8, 12), (7, 9), (4, 13), (9, 3), (40, 52)])
def test_naive_loop(size, setting):
    student, teacher = (maps(seed, 2, 3, *size, dtype=torch.float64) for seed in (0, 1))
    leaf = student.clone().requires_grad_()
    wanted = naive(leaf, teacher, 4, *setting)
    (exact,) = torch.autograd.grad(wanted, leaf)
    loss, grad = gradient(student, teacher, 4, *setting)
    assert_close(loss, wanted.detach())
    assert_close(grad, exact)
    loss, grad = gradient(student.float(), teacher.float(), 4, *setting)
    assert_close(loss, wanted.detach().float())
    assert (grad - exact).norm() < 1e-4 * exact.norm()


def test_hand_worked():
    # patches of one cell: a map of 1 x 2 cells and two images is X =
    # [[1, 0], [0, 1]], the teacher's Y = [[1, 0], [0, 2]]: K_X = I,
    # K_Y = diag(1, 4), CKA = 5 / (r2 r17) both ways
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(2, 1, 1, 2)
    loss = rcka_loss(student, teacher, 1, 2.0, 3.0, False)
    assert_close(loss, torch.tensor(5 * (1 - 5 / 34**0.5)))


def test_patch_rows_holds_each_patch_in_its_row():
    image = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    rows = patch_rows(image, 2)
    assert rows.shape == (3, 6, 8)
    wanted = torch.stack([naive_rows(image[:, c], 2) for c in range(3)])
    # the order within a row is free, one for all rows
    assert torch.equal(rows.sort(-1)[0], wanted.sort(-1)[0])
    order = rows[0, 0].argsort()
    assert all(torch.equal(row.argsort(), order) for row in rows.flatten(0, 1))


@pytest.mark.parametrize('size', [(33, 20), (5, 40), (17, 17), (1, 3)])
def test_patch_rows_resizes_as_interpolate(size):
    image = maps(0, 2, 3, *size)
    wanted = torch.stack([naive_rows(image[:, c], 16) for c in range(3)])
    assert_close(patch_rows(image, 16).sort(-1)[0], wanted.sort(-1)[0])


@pytest.mark.parametrize('setting', SETTINGS)
def test_gradcheck(setting):
    student = maps(0, 2, 2, 3, 5, dtype=torch.float64).requires_grad_()
    teacher = maps(1, 2, 2, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda leaf: rcka_loss(leaf, teacher, 2, *setting), student)


@pytest.mark.parametrize('setting', SETTINGS)
def test_invariances(setting):
    student, teacher = maps(0, 2, 4, 10, 9), maps(1, 2, 4, 10, 9)
    loss = rcka_loss(student, teacher, 4, *setting)

    def same(student, teacher):
        assert_close(rcka_loss(student, teacher, 4, *setting), loss)

    order = torch.randperm(4)
    same(student[:, order], teacher[:, order])
    same(student.flip(0), teacher.flip(0))
    same(student.flip(-1), teacher.flip(-1))
    # a positive factor, another one for each channel
    factor = torch.tensor([0.1, 1.0, 3.0, 20.0]).view(4, 1, 1)
    same(student * factor, teacher)
    same(student, teacher * factor)
    # tiling in the batch doubles every product
    same(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1))
    if setting[2]:
        same(student + 10, teacher - 10)


@pytest.mark.parametrize('setting', SETTINGS)
def test_zero_at_identity(setting):
    teacher = maps(0, 2, 3, 20, 40)
    loss, grad = gradient(3 * teacher, teacher, 16, *setting)
    assert loss.abs() < 1e-5
    assert grad.abs().max() < 1e-6


@pytest.mark.parametrize('scale', [1e-4, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize('setting', SETTINGS)
def test_scale(setting, scale):
    student, teacher = maps(0, 2, 2, 9, 8), maps(1, 2, 2, 9, 8)
    loss, grad = gradient(student, teacher, 4, *setting)
    scaled, scaled_grad = gradient(scale * student, scale * teacher, 4, *setting)
    assert_close(scaled, loss)
    assert_close(scaled_grad * scale, grad)


@pytest.mark.parametrize('setting', SETTINGS)
def test_dead_channels(setting):
    student, teacher = maps(0, 2, 4, 9, 8), maps(1, 2, 4, 9, 8)
    alive, _ = gradient(student[:, 3:], teacher[:, 3:], 4, *setting)
    student[:, 0] = teacher[:, 1] = student[:, 2] = teacher[:, 2] = 0
    loss, grad = gradient(student, teacher, 4, *setting)
    # nothing in either map: not aligned, and nothing to learn from
    assert_close(4 * loss, alive + 3 * sum(setting[:2]))
    assert torch.equal(grad[:, :3], torch.zeros_like(grad[:, :3]))
    assert grad[:, 3].any()


@pytest.mark.parametrize('setting', SETTINGS)
def test_all_zero_maps(setting):
    zeros = torch.zeros(2, 3, 20, 40)
    loss, grad = gradient(zeros, zeros, 16, *setting)
    assert_close(loss, torch.tensor(sum(setting[:2])))
    assert torch.equal(grad, zeros)


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('constant', [0.1, 1.0, 1e3])
def test_constant_maps(setting, constant):
    # a dead channel with a bias: a resize leaves rounding noise in it
    student = torch.full((2, 3, 20, 35), constant)
    loss, grad = gradient(student, maps(1, 2, 3, 20, 35), 16, *setting)
    assert loss.isfinite() and grad.isfinite().all()
    if setting[2]:
        assert_close(loss, torch.tensor(sum(setting[:2])))
        assert torch.equal(grad, torch.zeros_like(grad))
    else:  # the gradient of a function of the direction
        assert (grad * constant).abs().max() < 1


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    student = 100 * maps(0, 2, 3, 20, 18).to(dtype)
    teacher = 100 * maps(1, 2, 3, 20, 18).to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        loss, grad = gradient(student, teacher, 8, 1.0, 1.0, True)
    assert loss.dtype == torch.float32 and grad.dtype == dtype
    assert grad.isfinite().all() and grad.any()
    assert_close(loss, rcka_loss(student.float(), teacher.float(), 8, 1.0, 1.0, True))


@pytest.mark.parametrize(
    'size, center, wanted',
    [
        ((100, 168), False, 16),
        ((16, 16), False, 8),  # one patch of 16 has CKA = 1 with anything
        ((16, 17), False, 16),  # two
        ((16, 17), True, 8),  # two are one direction after centring
        ((16, 33), True, 16),  # three
        ((7, 11), False, 8),
        ((7, 8), False, 4),
        ((1, 2), False, 1),
        ((1, 2), True, 1),
        ((1, 1), True, 1),
    ],
)
def test_fitting_patch(size, center, wanted):
    assert fitting_patch(*size, 16, center) == wanted


@pytest.mark.parametrize('center', [False, True])
def test_a_map_of_one_patch_still_teaches(center):
    student, teacher = maps(0, 2, 3, 13, 15), maps(1, 2, 3, 13, 15)
    loss, grad = gradient(student, teacher, 16, 1.0, 0.0, center)
    assert loss > 0.01 and grad.abs().max() > 1e-4
    assert_close(loss, rcka_loss(student, teacher, 8, 1.0, 0.0, center))


@pytest.mark.parametrize('setting', SETTINGS)
def test_chunks_change_nothing(setting, monkeypatch):
    student, teacher = maps(0, 2, 7, 9, 8), maps(1, 2, 7, 9, 8)
    whole = gradient(student, teacher, 4, *setting)
    for values in (1, 2 * 2 * 9 * 8, 5 * 2 * 9 * 8):  # 1, 2, 5 channels
        monkeypatch.setattr(MODULE, 'CHUNK_ON_CPU', values)
        assert_close(gradient(student, teacher, 4, *setting), whole)


@pytest.mark.parametrize('setting', SETTINGS)
def test_many_patches_are_columns(setting, monkeypatch):
    # 192 patches of 16 cells: products of 16 x 16 rather than 192 x 192
    pair = maps(0, 1, 3, 48, 64), maps(1, 1, 3, 48, 64)
    shapes = []
    original = CKA.alignment_loss
    monkeypatch.setattr(CKA, 'alignment_loss', lambda x, y, task: (shapes.append(x.shape), original(x, y, task))[1])
    value, grad = gradient(*pair, 4, *setting)
    assert shapes == [(3, 16, 192)]
    shapes.clear()
    monkeypatch.setattr(MODULE, 'MANY_PATCHES', float('inf'))
    wanted, wanted_grad = gradient(*pair, 4, *setting)
    assert shapes == [(3, 192, 16)]
    assert_close(value, wanted)
    assert_close(grad, wanted_grad)


def test_gradient_goes_to_the_student_alone():
    student, teacher = (maps(seed, 2, 3, 8, 8).requires_grad_() for seed in (0, 1))
    loss = rcka_loss(student, teacher, 4)
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    (3 * loss).backward()
    assert_close(student.grad, 3 * first)
    assert teacher.grad is None
    # no graph where none is wanted, and the same number
    with torch.no_grad():
        value = rcka_loss(student, teacher, 4)
    assert not value.requires_grad
    assert_close(value, loss.detach())
    assert not rcka_loss(student.detach(), teacher, 4).requires_grad


def test_non_contiguous_maps():
    student, teacher = maps(0, 2, 8, 9, 3), maps(1, 2, 8, 9, 3)
    wanted = gradient(student.permute(0, 3, 1, 2).contiguous(), teacher.permute(0, 3, 1, 2).contiguous(), 4)
    got = gradient(student.permute(0, 3, 1, 2), teacher.permute(0, 3, 1, 2), 4)
    assert_close(got, wanted)


def test_levels_add_up():
    levels_S = tuple(maps(0, 2, 3, *size) for size in ((20, 33), (10, 17)))
    levels_T = tuple(maps(1, 2, 3, *size) for size in ((20, 33), (10, 17)))
    module = MODELS.build(dict(type='kd_ext.RCKALoss', patch_size=8, inter_weight=2.0, center=False, loss_weight=5.0))
    wanted = 5 * sum(rcka_loss(student, teacher, 8, 1.0, 2.0, False) for student, teacher in zip(levels_S, levels_T))
    assert_close(module(levels_S, levels_T), wanted)
    assert_close(module(levels_S[0], levels_T[0]), module(levels_S[:1], levels_T[:1]))


def test_no_images():
    empty = torch.zeros(0, 3, 8, 8, requires_grad=True)
    loss = RCKALoss()(empty, torch.zeros(0, 3, 8, 8))
    loss.backward()
    assert loss == 0 and empty.grad.shape == empty.shape


@pytest.mark.parametrize(
    'kwargs, match',
    [
        (dict(patch_size=0), 'patch_size to be a whole number >= 1, but got 0'),
        (dict(patch_size=2.0), 'patch_size to be a whole number >= 1'),
        (dict(intra_weight=-1.0), 'intra_weight to be a finite number >= 0'),
        (dict(inter_weight='1'), "inter_weight to be .* but got '1'"),
        (dict(loss_weight=float('nan')), 'loss_weight to be a finite number'),
        (dict(intra_weight=0.0), 'intra_weight and inter_weight to be not 0 both'),
    ],
)
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        RCKALoss(**kwargs)


@pytest.mark.parametrize(
    'student, teacher, error, match',
    [
        (maps(0, 1, 2, 8, 8), [], ValueError, 'the same number of levels'),
        ((), (), ValueError, 'the same number of levels, at least one'),
        ([None], [None], TypeError, 'preds_S to be a tensor'),
        (maps(0, 2, 8, 8), maps(0, 2, 8, 8), ValueError, r'tensor \(B, C, H, W\)'),
        (maps(0, 1, 2, 8, 8), maps(0, 1, 3, 8, 8), ValueError, 'of one shape'),
        (maps(0, 1, 2, 8, 8), maps(0, 1, 2, 8, 9), ValueError, 'of one shape'),
        (maps(0, 1, 2, 8, 8).long(), maps(0, 1, 2, 8, 8), ValueError, 'floating-point'),
    ],
)
def test_bad_maps(student, teacher, error, match):
    with pytest.raises(error, match=match):
        RCKALoss()(student, teacher)
