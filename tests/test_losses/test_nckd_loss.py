import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from kd_ext.losses.nckd_loss import NCKDLoss, nc1_loss, nc2_loss

K, D = 4, 6


@pytest.fixture
def regions():
    """Student, labels (K is background), K + 1 class means."""
    generator = torch.Generator().manual_seed(0)
    student = torch.rand(10, D, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 4, 4, 4, -1, 0, 1])
    return student, labels, torch.rand(5, D, generator=generator)


def unit(vector):
    return vector / vector.norm()


def naive_nc1(student, labels, means, tau, center):
    seen = [k for k in range(len(means)) if means[k].norm() > 0]
    g = torch.stack([means[k] for k in seen]).mean(0) * center
    terms = []
    for s, label in zip(student, labels.tolist()):
        if label in seen:
            scores = [math.exp(unit(s - g) @ unit(means[k] - g) / tau) for k in seen]
            terms.append(-math.log(scores[seen.index(label)] / sum(scores)))
    return torch.tensor(sum(terms) / len(terms))


def naive_nc2(student, teacher, center):
    seen = [k for k in range(len(teacher)) if student[k].norm() > 0 and teacher[k].norm() > 0]
    cosines = []
    for means in (student, teacher):
        g = torch.stack([means[k] for k in seen]).mean(0) * center
        cosines.append([unit(means[k] - g) @ unit(means[m] - g) for k in seen for m in seen if k != m])
    return torch.stack([(a - b) ** 2 for a, b in zip(*cosines)]).mean()


def test_nc1_hand_worked():
    # means (1, 0), (0, 1): g = (1/2, 1/2), directions (1, -1), (-1, 1) / r2
    # s = (1, 0): cosines 1 and -1, tau 1: log(1 + e^-2) = 0.126928
    means = torch.eye(2)
    loss = nc1_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), means, 1.0)
    assert_close(loss, torch.tensor(0.126928), rtol=1e-5, atol=0)
    # not centred: cosines 1 and 0: log(1 + e^-1) = 0.313262
    loss = nc1_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), means, 1.0, center=False)
    assert_close(loss, torch.tensor(0.313262), rtol=1e-5, atol=0)


def test_nc2_hand_worked():
    # not centred: student cosine 1, teacher cosine 0: 1; the third class
    # is seen by the teacher alone
    student = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert_close(nc2_loss(student, teacher, center=False), torch.tensor(1.0))
    # centred: two classes are always opposite
    assert nc2_loss(student, teacher) < 1e-10


def test_class_at_the_centre_has_no_direction():
    # the teacher's cosines are -1/2; the student's -1, 0 and 0, as its third
    # class is the mean of the others: three gaps of 1/2
    student = torch.tensor([[1.0, 1.0, 0.0], [3.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    assert_close(nc2_loss(student, torch.eye(3)), torch.tensor(0.25))


def test_collapsed_student_has_no_gradient_from_rounding():
    # equal class means, up to what fp32 leaves of their difference
    generator = torch.Generator().manual_seed(1)
    row = 6 * torch.rand(256, generator=generator)
    labels = torch.randint(0, K, (60,), generator=generator)
    means = torch.rand(K, 256, generator=generator)
    student = row.repeat(60, 1).requires_grad_()
    loss = NCKDLoss(num_classes=K, width=256)
    for scale in (1.1, 1.0, 0.9):
        terms = loss(scale * student, labels, means)
    terms['nc2'].backward()
    assert (student.grad == 0).all()


def test_minimum_of_nc1_is_at_an_etf():
    # floor for K classes in an ETF: log(1 + (K-1) exp(-K / (K-1) / tau))
    means = torch.eye(80)
    loss = nc1_loss(means, torch.arange(80), means)
    floor = math.log(1 + 79 * math.exp(-80 / 79 / 0.1))
    assert_close(loss, torch.tensor(floor), rtol=1e-4, atol=0)
    assert 0.003 < floor < 0.0033


def test_nc2_is_zero_for_rotated_scaled_shifted_copies(regions):
    means = regions[2]
    rotation = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(1)))[0]
    assert nc2_loss(means, means) == 0
    assert nc2_loss(3 * means @ rotation + 5, means) < 1e-8
    assert nc2_loss(3 * means @ rotation, means, center=False) < 1e-8
    wide = torch.cat([means, means], 1)  # widths may differ
    assert nc2_loss(wide, means) < 1e-8


@pytest.mark.parametrize('center', [True, False])
def test_naive_loops(regions, center):
    student, labels, means = regions
    for tau in (0.1, 1.0):
        assert_close(nc1_loss(student, labels, means, tau, center), naive_nc1(student, labels, means, tau, center))
    unseen = means.clone()
    unseen[2] = 0
    assert_close(nc1_loss(student, labels, unseen, 1.0, center), naive_nc1(student, labels, unseen, 1.0, center))
    other = torch.rand(5, D, generator=torch.Generator().manual_seed(1))
    other[0] = 0
    assert_close(nc2_loss(other, unseen, center), naive_nc2(other, unseen, center))


def test_order_does_not_matter(regions):
    student, labels, means = regions
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    assert_close(nc1_loss(student[order], labels[order], means), nc1_loss(*regions))
    classes = torch.tensor([3, 0, 4, 1, 2, -1])  # the last one is label -1
    moved = torch.empty_like(means)
    moved[classes[:5]] = means
    assert_close(nc1_loss(student, classes[labels], moved), nc1_loss(*regions))
    assert_close(nc2_loss(student[:5], moved), nc2_loss(student[:5][classes[:5]], means))


@pytest.mark.parametrize('center', [True, False])
def test_gradcheck(regions, center):
    student, labels, means = regions
    student = student.double().requires_grad_()
    means = means.double()
    assert torch.autograd.gradcheck(lambda s: nc1_loss(s, labels, means, 0.5, center), student)
    assert torch.autograd.gradcheck(lambda s: nc2_loss(s[:5], means, center), student)


def test_one_class_only():
    student = torch.rand(3, D, requires_grad=True)
    labels = torch.zeros(3, dtype=torch.long)
    terms = NCKDLoss(num_classes=1, width=D)(student, labels, torch.rand(1, D))
    (terms['nc1'] + terms['nc2']).backward()
    assert terms == {'nc1': 0, 'nc2': 0} and (student.grad == 0).all()


@pytest.mark.parametrize('count,label', [(0, 0), (3, -1), (3, K)])
def test_nothing_to_count_gives_zeros_in_the_graph(regions, count, label):
    loss = NCKDLoss(num_classes=K, width=D)
    loss(*regions)
    state = loss.student_means.clone()
    student = torch.rand(count, D, requires_grad=True)
    terms = loss(student, torch.full((count,), label), regions[2])
    (terms['nc1'] + terms['nc2']).backward()
    assert terms == {'nc1': 0, 'nc2': 0} and (student.grad == 0).all()
    assert loss.student_means.equal(state)


def test_no_class_seen_by_the_teacher_is_finite(regions):
    student = regions[0].requires_grad_()
    terms = NCKDLoss(num_classes=K, width=D)(student, regions[1], torch.zeros(K, D))
    (terms['nc1'] + terms['nc2']).backward()
    assert terms == {'nc1': 0, 'nc2': 0} and (student.grad == 0).all()


def test_zero_embeddings_are_finite(regions):
    student = torch.zeros(10, D, requires_grad=True)
    for center in (True, False):
        loss = NCKDLoss(num_classes=K, width=D, center=center)
        terms = loss(student, *regions[1:])
        (terms['nc1'] + terms['nc2']).backward()
        assert torch.isfinite(student.grad).all()


def test_running_means(regions):
    student, labels, means = regions
    loss = NCKDLoss(num_classes=K, width=D, momentum=0.4)
    loss(student, labels, means)
    first = torch.stack([student[labels == k].mean(0) for k in range(K)])
    assert_close(loss.student_means, first)
    assert loss.student_counts.tolist() == [2, 2, 1, 1]
    # class 0: 1 region after 2, share 1/3 -> momentum 0.4;
    # class 2: 1 region after 1, share 1/2; classes 1 and 3 do not occur
    loss(torch.ones(2, D), torch.tensor([0, 2]), means)
    expected = first.clone()
    expected[0] += 0.4 * (1 - first[0])
    expected[2] += 0.5 * (1 - first[2])
    assert_close(loss.student_means, expected)
    assert loss.student_counts.tolist() == [3, 2, 2, 1]
    loss.eval()(student, labels, means)
    assert_close(loss.student_means, expected)


def test_gradient_flows_through_the_current_batch(regions):
    student, labels, means = regions
    student = student.requires_grad_()
    teacher = means.clone().requires_grad_()
    loss = NCKDLoss(num_classes=K, width=D, nc1_weight=0.0, momentum=0.5)
    for _ in range(2):
        terms = loss(student, labels, teacher)
    terms['nc2'].backward()
    assert teacher.grad is None and not loss.student_means.requires_grad
    own = torch.stack([student[labels == k].mean(0) for k in range(K)])
    used = own.detach() + 0.5 * (own - own.detach())
    (expected,) = torch.autograd.grad(nc2_loss(used, means[:K]), student)
    assert_close(student.grad, expected)


def test_gradient_goes_to_the_student_alone(regions):
    student, labels, means = regions
    means.requires_grad_()
    nc1_loss(student.requires_grad_(), labels, means).backward()
    assert student.grad.any() and means.grad is None


def test_background(regions):
    student, labels, means = regions
    without = NCKDLoss(num_classes=K, width=D)
    terms = without(student, labels, means)
    assert_close(terms['nc1'], nc1_loss(student, labels, means[:K]))
    for key, value in without(student, labels, means[:K]).items():
        assert_close(value, terms[key])
    held = NCKDLoss(num_classes=K, width=D, include_background=True)
    assert_close(held(student, labels, means)['nc1'], nc1_loss(student, labels, means))
    assert held.student_means.shape == (K + 1, D)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_fp32(regions, dtype):
    student, labels, means = regions
    student = (1000 * student).to(dtype).requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        terms = NCKDLoss(num_classes=K, width=D)(student, labels, means)
    (terms['nc1'] + terms['nc2']).backward()
    plain = NCKDLoss(num_classes=K, width=D)(student.float(), labels, means)
    for key, value in plain.items():
        assert terms[key].dtype == torch.float32
        assert_close(terms[key], value)
    assert torch.isfinite(student.grad).all()


def test_no_value_is_read_on_the_host(regions):
    # a fake tensor has no values: .item(), nonzero() and branches on it raise
    with FakeTensorMode() as mode:
        student, *rest = (mode.from_tensor(value) for value in regions)
        terms = NCKDLoss(num_classes=K, width=D)(student.requires_grad_(), *rest)
        (terms['nc1'] + terms['nc2']).backward()


def _steps(batches, means, part):
    """Terms, the last step's gradient and state over some steps."""
    loss = NCKDLoss(num_classes=K, width=D)
    for student, labels, cut in batches:
        student = student.clone().requires_grad_()
        rows = part(cut)
        terms = loss(student[rows], labels[rows], means)
    (terms['nc1'] + terms['nc2']).backward()
    return terms, student.grad, loss.state_dict()


def _one_of_two(rank, folder):
    dist.init_process_group('gloo', f'file://{folder}/init', rank=rank, world_size=2)
    part = (lambda cut: slice(cut)) if rank == 0 else (lambda cut: slice(cut, None))
    runs, means = torch.load(f'{folder}/runs.pt')
    torch.save([_steps(batches, means, part) for batches in runs], f'{folder}/{rank}.pt')
    dist.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(regions, tmp_path):
    student, labels, means = regions
    # uneven parts, and one run ends with none at all for the first process
    runs = [[(student, labels, 3), (student.flip(0), labels, 5), (student * 2 - 1, labels, cut)] for cut in (0, 4)]
    torch.save((runs, means), tmp_path / 'runs.pt')
    # this file as a script: a spawned process could not import it by the
    # name it has here, as mmrazor installs a package called tests
    root = Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(tmp_path)], cwd=root, env={**os.environ, 'PYTHONPATH': str(root)}
        )
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    ranks = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    for batches, first, second in zip(runs, *ranks):
        terms, grad, state = _steps(batches, means, lambda cut: slice(None))
        for key, value in terms.items():
            assert_close((first[0][key] + second[0][key]) / 2, value)
        # DDP averages gradients
        assert_close((first[1] + second[1]) / 2, grad)
        for key, value in state.items():
            assert first[2][key].equal(second[2][key])
            assert_close(first[2][key], value)


def test_set_up_later_resumes_and_is_registered(regions):
    from kd_ext.registry import MODELS

    loss = MODELS.build(dict(type='kd_ext.NCKDLoss', loss_weight=2.0, nc2_weight=3.0))
    loss.setup(K, D)
    loss.setup(K, D)
    first = loss(*regions)
    resumed = NCKDLoss(num_classes=K, width=D)
    resumed.load_state_dict(loss.state_dict())
    second, plain = loss(*regions), resumed(*regions)
    assert_close(second['nc1'], 2 * plain['nc1'])
    assert_close(second['nc2'], 6 * plain['nc2'])
    assert_close(first['nc1'], second['nc1'])  # prototypes do not move


def test_errors(regions):
    student, labels, means = regions
    loss = NCKDLoss(num_classes=K, width=D)
    with pytest.raises(RuntimeError, match='known before training'):
        NCKDLoss()(*regions)
    with pytest.raises(ValueError, match=r'class_means to be \(4 or 5, 6\)'):
        loss(student, labels, means[:2])
    with pytest.raises(ValueError, match=r'of shape \(9, 6\)'):
        loss.setup(9, D)
    with pytest.raises(ValueError, match='labels to be 10 whole numbers'):
        loss(student, labels[:3], means)
    with pytest.raises(ValueError, match='row of width 6'):
        nc1_loss(student, labels, means[:, :3])
    with pytest.raises(ValueError, match='with the same R'):
        nc2_loss(means, means[:3])
    with pytest.raises(ValueError, match='both given or both left out'):
        NCKDLoss(num_classes=K)
    for name, value in (('tau', 0), ('momentum', 0), ('momentum', 1.5), ('nc1_weight', -1), ('width', 0)):
        with pytest.raises(ValueError, match=name):
            NCKDLoss(**{'num_classes': K, 'width': D, name: value})


if __name__ == '__main__':
    _one_of_two(int(sys.argv[1]), sys.argv[2])
