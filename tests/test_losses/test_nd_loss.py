import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from kd_ext.losses.nd_loss import NDLoss, nd_loss
from tests.helpers.data_sets import REFERENCE

ARRAYS = REFERENCE / 'nd.npz'
K, D = 4, 6


@pytest.fixture
def regions():
    """Student, teacher, labels (K is background), K + 1 class means."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 10, D, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 4, 4, 4, 4, 0, 1])
    return student, teacher, labels, torch.rand(5, D, generator=generator)


def naive(student, teacher, labels, means):
    """The terms of the counted regions, one region at a time."""
    terms = []
    for s, t, label in zip(student, teacher, labels.tolist()):
        if 0 <= label < len(means) and means[label].norm() > 0:
            c = means[label] / means[label].norm()
            terms.append(1 - s @ c / max(s.norm(), t.norm()))
    return torch.stack(terms)


def test_released_code():
    arrays = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(ARRAYS).items()}
    student = arrays['student'].requires_grad_()
    loss = nd_loss(student, arrays['teacher'], arrays['labels'], arrays['class_means'])
    assert_close(loss.double(), arrays['loss'], rtol=1e-5, atol=0)
    loss.backward()
    error = (student.grad - arrays['grad_student']).norm()
    assert error <= 1e-5 * arrays['grad_student'].norm()


def test_zero_where_direction_and_norm_are_the_teachers(regions):
    _, _, labels, means = regions
    teacher = means[labels]
    assert nd_loss(teacher, teacher, labels, means).abs() < 1e-6
    assert nd_loss(3 * teacher, teacher, labels, means).abs() < 1e-6
    half = nd_loss(teacher / 2, teacher, labels, means)
    assert_close(half, torch.tensor(0.5))


def test_hand_worked():
    # s = (3, 4), c = (1, 0): <s, c> = 3
    # ||t|| = 10 > 5: 1 - 3/10 = 0.7;  ||t|| = 1 < 5: 1 - 3/5 = 0.4
    student = torch.tensor([[3.0, 4.0], [3.0, 4.0]], requires_grad=True)
    teacher = torch.tensor([[6.0, 8.0], [0.0, 1.0]])
    means = torch.tensor([[7.0, 0.0]])
    loss = nd_loss(student, teacher, torch.zeros(2).long(), means)
    assert_close(loss, torch.tensor(0.55))
    loss.backward()
    # d/ds: -c / 10, and -c / 5 + 3 s / 5^3, halved by the mean over 2
    assert_close(student.grad, torch.tensor([[-0.05, 0.0], [-0.064, 0.048]]))


def test_naive_loop(regions):
    student, teacher, labels, means = regions
    assert_close(nd_loss(*regions), naive(student, teacher, labels, means).mean())
    sizes = torch.full((len(means),), 1.5)
    assert_close(nd_loss(*regions, class_sizes=sizes), naive(student, teacher, labels, means).sum() / sizes.sum())


def test_class_balanced(regions):
    student, teacher, labels, means = regions
    expected = torch.stack(
        [naive(student[labels == k], teacher[labels == k], labels[labels == k], means).mean() for k in range(5)]
    ).mean()
    loss = nd_loss(*regions, class_balanced=True)
    assert_close(loss, expected)
    repeats = torch.where(labels == K, 3, 1)
    more = [value.repeat_interleave(repeats, 0) for value in regions[:3]]
    assert_close(nd_loss(*more, means, class_balanced=True), loss)
    assert not torch.isclose(nd_loss(*more, means), nd_loss(*regions))


def test_background_and_ignored_are_left_out(regions):
    student, teacher, labels, means = regions
    kept = labels < K
    expected = naive(student[kept], teacher[kept], labels[kept], means).mean()
    without = (
        nd_loss(*regions, include_background=False),
        nd_loss(student, teacher, labels, means[:K]),
        nd_loss(student, teacher, labels, means[:K], include_background=False, num_classes=K),
        nd_loss(student, teacher, torch.where(kept, labels, -1), means),
    )
    for loss in without:
        assert_close(loss, expected)


def test_class_never_seen_is_left_out(regions):
    student, teacher, labels, means = regions
    means = means.clone()
    means[1] = 0
    student = student.clone().requires_grad_()
    loss = nd_loss(student, teacher, labels, means)
    assert_close(loss, naive(student, teacher, labels, means).mean())
    loss.backward()
    assert (student.grad.abs().sum(1) == 0).equal(labels == 1)


def test_one_class_only(regions):
    student, teacher, labels, means = regions
    labels = torch.zeros_like(labels)
    assert_close(nd_loss(student, teacher, labels, means[:1]), naive(student, teacher, labels, means).mean())


def test_order_and_scale_of_means_do_not_matter(regions):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    moved = [value[order] for value in regions[:3]]
    assert_close(nd_loss(*moved, 7 * regions[3]), nd_loss(*regions))
    classes = torch.tensor([3, 0, 4, 1, 2])  # the new label of each
    means = torch.empty_like(regions[3])
    means[classes] = regions[3]
    assert_close(nd_loss(*regions[:2], classes[regions[2]], means), nd_loss(*regions))


def test_without_teacher_the_mean_norm_stands_in(regions):
    student, _, labels, means = regions
    assert_close(nd_loss(student, None, labels, means), nd_loss(student, means[labels], labels, means))


def test_gradcheck(regions):
    student, teacher, labels, means = (value.double() if value.is_floating_point() else value for value in regions)
    student = (3 * student).requires_grad_()  # norms on both sides of t's
    for balanced in (False, True):
        assert torch.autograd.gradcheck(
            lambda s, balanced=balanced: nd_loss(s, 2 * teacher, labels, means, True, balanced), student
        )


def test_second_backward_leaves_the_first_gradient(regions):
    student, *rest = regions
    student = student.clone().requires_grad_()
    loss = nd_loss(student, *rest)
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(3 * loss, student)
    assert torch.equal(first, kept)
    assert_close(second, 3 * kept)


def test_gradient_goes_to_the_student_alone(regions):
    student, teacher, labels, means = regions
    inputs = [value.requires_grad_() for value in (student, teacher, means)]
    nd_loss(student, teacher, labels, means).backward()
    assert [value.grad is not None for value in inputs] == [True, False, False]


@pytest.mark.parametrize('count,label', [(0, 0), (3, -1), (3, 99)])
def test_nothing_to_count_gives_zero_in_the_graph(count, label):
    student = torch.rand(count, D, requires_grad=True)
    loss = NDLoss(class_balanced=True)(student, student.detach(), torch.full((count,), label), torch.rand(K, D))
    loss.backward()
    assert loss == 0 and (student.grad == 0).all()


def test_zero_vectors_are_finite(regions):
    _, _, labels, means = regions
    student = torch.zeros(10, D, requires_grad=True)
    loss = nd_loss(student, torch.zeros(10, D), labels, means)
    loss.backward()
    assert loss == 1 and (student.grad == 0).all()
    nd_loss(student, torch.ones(10, D), labels, means).backward()
    assert torch.isfinite(student.grad).all() and student.grad.any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_fp32(regions, dtype):
    student, teacher, labels, means = (
        (1000 * value).to(dtype) if value.is_floating_point() else value for value in regions
    )
    student.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        loss = nd_loss(student, teacher, labels, means)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(student.grad).all()
    assert_close(loss, nd_loss(student.float(), teacher.float(), labels, means.float()))


def test_no_value_is_read_on_the_host(regions):
    # a fake tensor has no values: .item(), nonzero() and branches on it raise
    with FakeTensorMode() as mode:
        student, *rest = (mode.from_tensor(value) for value in regions)
        student.requires_grad_()
        for loss in (NDLoss(), NDLoss(1.0, False, True, K)):
            loss(student, *rest).backward()


def test_module_is_registered_and_weighs(regions):
    from kd_ext.registry import MODELS

    loss = MODELS.build(dict(type='kd_ext.NDLoss', loss_weight=1.5))
    assert_close(loss(*regions), 1.5 * nd_loss(*regions))


def test_errors(regions):
    student, teacher, labels, means = regions
    with pytest.raises(TypeError, match='class_means to be a tensor'):
        nd_loss(student, teacher, labels, None)
    with pytest.raises(ValueError, match=r'preds_S to be .*\(N, D\)'):
        nd_loss(student[0], teacher, labels, means)
    with pytest.raises(ValueError, match='of one shape'):
        nd_loss(student, teacher[:5], labels, means)
    with pytest.raises(ValueError, match='labels to be 10 whole numbers'):
        nd_loss(student, teacher, labels.float(), means)
    with pytest.raises(ValueError, match='row of width 6'):
        nd_loss(student, teacher, labels, means[:, :3])
    with pytest.raises(ValueError, match='7 rows, or 8 .* but got 5 rows'):
        nd_loss(student, teacher, labels, means, False, False, 7)
    with pytest.raises(ValueError, match='loss_weight'):
        NDLoss(loss_weight=-1)
    with pytest.raises(ValueError, match='num_classes'):
        NDLoss(num_classes=0)
