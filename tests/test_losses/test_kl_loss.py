import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from kd_ext.losses.kl_loss import LogitKLLoss, kl_logits_loss
from tests.helpers.data_sets import REFERENCE

ARRAYS = REFERENCE / 'nd.npz'


@pytest.fixture
def logits():
    return torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))


def naive(student, teacher, tau, use_sigmoid):
    total = 0.0
    for s, t in zip((student / tau).tolist(), (teacher / tau).tolist()):
        if use_sigmoid:
            pairs = [
                (1 / (1 + math.exp(-sign * b)), 1 / (1 + math.exp(-sign * a)))
                for a, b in zip(s, t)
                for sign in (1, -1)
            ]
        else:
            pairs = [(math.exp(b) / sum(map(math.exp, t)), math.exp(a) / sum(map(math.exp, s))) for a, b in zip(s, t)]
        total += sum(p * math.log(p / q) for p, q in pairs)
    return torch.tensor(total * tau**2 / len(student))


@pytest.mark.parametrize('tau', [1, 4])
def test_released_code(tau):
    arrays = np.load(ARRAYS)
    loss = kl_logits_loss(torch.from_numpy(arrays['student_logits']), torch.from_numpy(arrays['teacher_logits']), tau)
    assert float(loss) == pytest.approx(float(arrays[f'kd_T{tau}']), rel=1e-5)


def test_hand_worked():
    # softmax: p = (3/4, 1/4), q = (1/2, 1/2):
    # 3/4 ln(3/2) + 1/4 ln(1/2) = 0.304099 - 0.173287 = 0.130812
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    assert_close(kl_logits_loss(student, teacher), torch.tensor(0.130812), rtol=1e-5, atol=0)
    # sigmoid: the first class is the same question, the second adds 0
    assert_close(kl_logits_loss(student, teacher, 1.0, True), torch.tensor(0.130812), rtol=1e-5, atol=0)
    # logits twice as large at T = 2: the same probabilities, times T^2
    assert_close(kl_logits_loss(2 * student, 2 * teacher, 2.0), torch.tensor(4 * 0.130812), rtol=1e-5, atol=0)


@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.parametrize('tau', [0.5, 1.0, 4.0])
def test_naive_loop_and_identity(logits, tau, use_sigmoid):
    student, teacher = logits
    loss = kl_logits_loss(student, teacher, tau, use_sigmoid)
    assert_close(loss, naive(student, teacher, tau, use_sigmoid))
    student = teacher.clone().requires_grad_()
    loss = kl_logits_loss(student, teacher, tau, use_sigmoid)
    loss.backward()
    assert loss.abs() < 1e-6 and student.grad.abs().max() < 1e-6


def test_softmax_form_is_torchs(logits):
    student, teacher = logits
    expected = (
        torch.nn.functional.kl_div((student / 3).log_softmax(1), (teacher / 3).softmax(1), reduction='batchmean') * 9
    )
    assert_close(kl_logits_loss(student, teacher, 3.0), expected)


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_invariances(logits, use_sigmoid):
    student, teacher = logits
    loss = kl_logits_loss(student, teacher, 2.0, use_sigmoid)
    rows = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert_close(loss, kl_logits_loss(student[rows], teacher[rows], 2.0, use_sigmoid))
    columns = torch.tensor([4, 2, 0, 1, 3])
    assert_close(loss, kl_logits_loss(student[:, columns], teacher[:, columns], 2.0, use_sigmoid))
    assert_close(loss, kl_logits_loss(student.repeat(3, 1), teacher.repeat(3, 1), 2.0, use_sigmoid))
    if not use_sigmoid:
        assert_close(loss, kl_logits_loss(student + 5, teacher - 2, 2.0))


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_gradcheck_and_no_teacher_gradient(logits, use_sigmoid):
    student, teacher = logits.double().clone().requires_grad_()
    inputs = student.detach().requires_grad_(), teacher.detach()
    assert torch.autograd.gradcheck(lambda s, t: kl_logits_loss(s, t, 2.0, use_sigmoid), inputs)
    teacher = teacher.detach().requires_grad_()
    kl_logits_loss(inputs[0], teacher, 2.0, use_sigmoid).backward()
    assert teacher.grad is None


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_empty_gives_zero_in_the_graph(use_sigmoid):
    student = torch.rand(0, 5, requires_grad=True)
    loss = LogitKLLoss(use_sigmoid=use_sigmoid)(student, torch.rand(0, 5))
    loss.backward()
    assert loss == 0 and student.grad.shape == (0, 5)


@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_extreme_logits(logits, dtype, use_sigmoid):
    student, teacher = (200 * logits).to(dtype)
    student = student.detach().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        loss = kl_logits_loss(student, teacher, 1.0, use_sigmoid)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


def test_one_class_only():
    student, teacher = torch.zeros(3, 1), torch.ones(3, 1)
    assert kl_logits_loss(student, teacher) == 0  # one class is certain
    assert kl_logits_loss(student, teacher, 1.0, True) > 0.1


def test_module_is_registered_and_weighs(logits):
    from kd_ext.registry import MODELS

    loss = MODELS.build(dict(type='kd_ext.LogitKLLoss', tau=2, use_sigmoid=True, loss_weight=3.0))
    assert_close(loss(*logits), 3 * kl_logits_loss(*logits, 2.0, True))


def test_errors(logits):
    student, teacher = logits
    with pytest.raises(TypeError, match='preds_T to be a tensor'):
        kl_logits_loss(student, None)
    with pytest.raises(ValueError, match=r'preds_S to be .*\(N, K\)'):
        kl_logits_loss(logits, logits)
    with pytest.raises(ValueError, match='of one shape'):
        kl_logits_loss(student, teacher[:, :3])
    with pytest.raises(ValueError, match='tau to be a finite number > 0'):
        LogitKLLoss(tau=0)
    with pytest.raises(ValueError, match='loss_weight'):
        LogitKLLoss(loss_weight=-1)
