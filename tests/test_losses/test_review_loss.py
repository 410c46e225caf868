import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from kd_ext.losses.review_loss import AttentionFusion, ReviewKDLoss, hcl_loss


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def levels():
    """Student and teacher maps of three levels, from fine to coarse."""
    sizes = (12, 16), (6, 8), (3, 4)
    student = tuple(maps(2, 4 + level, *size, seed=level) for level, size in enumerate(sizes))
    teacher = tuple(maps(2, 8, *size, seed=9 + level) for level, size in enumerate(sizes))
    return student, teacher


def naive_hcl(student, teacher):
    loss, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < min(student.shape[-2:]):
            weight /= 2
            weights += weight
            pools = [
                torch.stack(
                    [
                        value[
                            :, :, (i * h) // size : -(-(i + 1) * h // size), (j * w) // size : -(-(j + 1) * w // size)
                        ].mean((2, 3))
                        for i in range(size)
                        for j in range(size)
                    ]
                )
                for value, (h, w) in ((student, student.shape[-2:]), (teacher, teacher.shape[-2:]))
            ]
            loss = loss + weight * F.mse_loss(*pools)
    return loss / weights


def test_hcl_hand_worked():
    # +1 and -1 on a 2 x 2 map: MSE 1, pooled to 1 x 1: 0.
    # weights 1 and 1/2: 1 / 1.5
    student = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    assert_close(hcl_loss(student, torch.zeros(1, 1, 2, 2)), torch.tensor(1 / 1.5))
    # an offset of 3 is 9 at every size
    assert_close(hcl_loss(torch.full((1, 2, 8, 8), 3.0), torch.zeros(1, 2, 8, 8)), torch.tensor(9.0))


@pytest.mark.parametrize('size', [(8, 8), (5, 7), (4, 9), (2, 3), (1, 1)])
def test_hcl_naive_loop(size):
    student, teacher = maps(2, 3, *size), maps(2, 3, *size, seed=1)
    assert_close(hcl_loss(student, teacher), naive_hcl(student, teacher))
    assert hcl_loss(student, student) == 0


def test_hcl_invariances():
    student, teacher = maps(2, 3, 8, 8), maps(2, 3, 8, 8, seed=1)
    loss = hcl_loss(student, teacher)
    order = [2, 0, 1]
    assert_close(hcl_loss(student[:, order], teacher[:, order]), loss)
    assert_close(hcl_loss(student.flip(0), teacher.flip(0)), loss)
    assert_close(hcl_loss(student + 5, teacher + 5), loss)
    assert_close(hcl_loss(3 * student, 3 * teacher), 9 * loss)


def test_hcl_gradcheck_and_no_teacher_gradient():
    student = maps(1, 2, 5, 6).double().requires_grad_()
    teacher = maps(1, 2, 5, 6, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: hcl_loss(s, teacher.detach()), student)
    hcl_loss(student, teacher).backward()
    assert student.grad.any() and teacher.grad is None


@pytest.mark.parametrize('shape', [(0, 3, 4, 4), (2, 3, 0, 4)])
def test_hcl_empty_gives_zero_in_the_graph(shape):
    student = torch.rand(shape, requires_grad=True)
    loss = hcl_loss(student, torch.rand(shape))
    loss.backward()
    assert loss == 0 and student.grad.shape == shape


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(levels, dtype):
    student, teacher = levels
    half = (300 * student[0]).to(dtype).requires_grad_()  # squares overflow
    loss = hcl_loss(half, torch.zeros_like(half))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(half.grad).all()
    module = ReviewKDLoss((4, 5, 6), 8, mid_channels=4)
    with torch.autocast('cpu', torch.bfloat16):
        loss = module(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


def test_fusion_by_hand(levels):
    fine, coarse = levels[0][:2]
    fusion = AttentionFusion(4, 3, 8, fuse=True).eval()
    above = maps(2, 3, *coarse.shape[-2:], seed=5)
    out, fused = fusion(fine, above, (24, 32))
    # eval-mode BN at its start divides by sqrt(1 + eps) and does no more
    x = F.conv2d(fine, fusion.reduce[0].weight) / (1 + 1e-5) ** 0.5
    up = above.repeat_interleave(2, 2).repeat_interleave(2, 3)
    scores = (
        torch.einsum('sc,bchw->bshw', fusion.attention.weight[..., 0, 0], torch.cat([x, up], 1))
        + fusion.attention.bias[:, None, None]
    )
    a, b = scores.sigmoid().split(1, 1)
    expected = (a * x + b * up).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_close(fused, expected)
    assert out.shape == (2, 8, 24, 32)


def test_levels_are_fused_from_coarse_to_fine(levels):
    student, teacher = levels
    module = ReviewKDLoss((4, 5, 6), (8, 8, 8), mid_channels=4).eval()
    assert module.relates_levels
    assert module.fusions[2].attention is None  # nothing is above it
    out, fused = module.fusions[2](student[2], None, (3, 4))
    total = hcl_loss(out, teacher[2])
    for level, size in ((1, (6, 8)), (0, (12, 16))):
        out, fused = module.fusions[level](student[level], fused, size)
        total = total + hcl_loss(out, teacher[level])
    assert_close(module(student, teacher), total)
    inputs = [value.clone().requires_grad_() for value in student]
    module(inputs, teacher).backward()
    assert all(value.grad.any() for value in inputs)


def test_teacher_maps_of_other_sizes_and_a_single_level(levels):
    student, teacher = levels
    larger = tuple(F.interpolate(value, scale_factor=2) for value in teacher)
    module = ReviewKDLoss((4, 5, 6), 8, mid_channels=4)
    module(student, larger).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    single = ReviewKDLoss(4, 8, mid_channels=4)
    assert single(student[0], teacher[0]) > 0


def test_every_parameter_learns(levels):
    student, teacher = levels
    torch.manual_seed(0)
    module = ReviewKDLoss((4, 5, 6), 8, mid_channels=8)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    losses = []
    for _ in range(20):
        loss = module(student, teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_set_up_later_is_the_same_and_registered(levels):
    from kd_ext.registry import MODELS

    late = MODELS.build(dict(type='kd_ext.ReviewKDLoss', mid_channels=4, loss_weight=2.0))
    assert not list(late.parameters())
    late.setup((4, 5, 6), (8, 8, 8))
    late.setup([4, 5, 6], [8, 8, 8])
    given = ReviewKDLoss((4, 5, 6), 8, num_levels=3, mid_channels=4)
    given.load_state_dict(late.state_dict())
    assert_close(late(*levels), 2 * given(*levels))


def test_errors(levels):
    student, teacher = levels
    module = ReviewKDLoss(4, 8, num_levels=3)
    with pytest.raises(ValueError, match='same number of levels'):
        module(student, teacher[:2])
    with pytest.raises(ValueError, match=r'maps of widths .*4, 4, 4'):
        module(student, teacher)
    with pytest.raises(ValueError, match=r'Call setup\('):
        ReviewKDLoss()(student, teacher)
    with pytest.raises(ValueError, match='Leave out in_channels'):
        module.setup((4, 5, 6), (8, 8, 8))
    with pytest.raises(ValueError, match='one number for each level'):
        ReviewKDLoss((4, 5), (8, 8, 8))
    with pytest.raises(ValueError, match='both given or both left out'):
        ReviewKDLoss(in_channels=4)
    with pytest.raises(TypeError, match='preds_T to be a tensor'):
        hcl_loss(student[0], None)
    with pytest.raises(ValueError, match='of one shape'):
        hcl_loss(student[0], teacher[0])
    for name in ('mid_channels', 'loss_weight'):
        with pytest.raises(ValueError, match=name):
            ReviewKDLoss(**{name: -1})
