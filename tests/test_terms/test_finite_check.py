"""What is not finite is named before an optimizer steps, also where the host does not wait for the device."""

import copy
import pickle

import pytest
import torch
from mmengine.optim import OptimWrapper

from kd_ext.losses import waiting
from kd_ext.terms.finite_check import FiniteCheck
from tests.helpers import tiny_detectors as tiny

ENTRIES = dict(
    rcka=tiny.rcka(),
    nd=dict(type='kd_ext.NDLoss', at='embedding'),
    lipschitz=dict(type='kd_ext.LipschitzLoss', at='backbone'),
)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(waiting, 'PROMPT', set())


def model_and_data(**entries):
    model = tiny.distill(**(entries or ENTRIES)).train()
    return model, model.data_preprocessor(tiny.batch(), True)


def broken(module, monkeypatch, factor=float('nan')):
    forward = module.forward
    monkeypatch.setattr(module, 'forward', lambda *args, **kwargs: forward(*args, **kwargs) * factor)


def step(model, data, optimizer):
    losses = model(**data, mode='loss')
    optimizer.update_params(model.parse_losses(losses)[0])
    return losses


def optimizer_of(model):
    return OptimWrapper(optimizer=torch.optim.SGD(model.parameters(), 0.01))


@pytest.mark.parametrize('term', ENTRIES)
def test_a_term_is_named_by_the_backward_pass(term, as_on_a_gpu, monkeypatch):
    model, data = model_and_data()
    optimizer = optimizer_of(model)
    step(model, data, optimizer)
    before = copy.deepcopy(model.student.state_dict())
    broken(model.distiller.terms[term].loss, monkeypatch)
    losses = model(**data, mode='loss')  # does not wait, so it cannot know
    with pytest.raises(FloatingPointError, match=f'distill.loss_{term} at iteration .* first seen in .*the loss'):
        optimizer.update_params(model.parse_losses(losses)[0])
    after = model.student.state_dict()
    for name, _ in model.student.named_parameters():
        assert torch.equal(before[name], after[name]), name


def test_the_spoiled_feature_is_named(as_on_a_gpu):
    model, data = model_and_data(rcka=ENTRIES['rcka'])
    with torch.no_grad():
        model.teacher.neck.fpn_convs[1].conv.bias[0] = float('inf')
    losses = model(**data, mode='loss')
    with pytest.raises(FloatingPointError, match=r"level 1 of 'neck': \d+ of \d+ values of the teacher feature"):
        model.parse_losses(losses)[0].backward()


def test_the_task_loss_is_named(as_on_a_gpu, monkeypatch):
    model, data = model_and_data()
    broken(model.student.bbox_head.loss_bbox, monkeypatch, float('inf'))
    losses = model(**data, mode='loss')
    with pytest.raises(FloatingPointError, match=r'student\.loss_bbox at iteration .* to be finite, but got inf'):
        model.parse_losses(losses)[0].backward()


def test_a_scaler_still_skips_its_step(as_on_a_gpu, monkeypatch):
    model, data = model_and_data()
    broken(model.student.bbox_head.loss_bbox, monkeypatch, float('inf'))
    with torch.autocast('cpu', dtype=torch.float16):
        losses = model(**data, mode='loss')
    model.parse_losses(losses)[0].backward()
    model.distiller.finite.settle()


def test_a_step_without_backward_is_named_at_the_next_one(as_on_a_gpu, monkeypatch):
    model, data = model_and_data()
    with monkeypatch.context() as patch:
        broken(model.distiller.terms['rcka'].loss, patch)
        model(**data, mode='loss')
    with pytest.raises(FloatingPointError, match='distill.loss_rcka'):
        model(**data, mode='loss')


def test_without_gradient_it_is_named_at_once(as_on_a_gpu, monkeypatch):
    model, data = model_and_data()
    broken(model.distiller.terms['rcka'].loss, monkeypatch)
    with torch.no_grad(), pytest.raises(FloatingPointError, match='distill.loss_rcka'):
        model(**data, mode='loss')


def test_copies_hold_nothing_of_a_step(as_on_a_gpu):
    model, data = model_and_data()
    model(**data, mode='loss')
    assert copy.deepcopy(model).distiller.finite._pending == []
    assert isinstance(pickle.loads(pickle.dumps(model.distiller.finite)), FiniteCheck)


def test_the_steps_are_the_same_to_the_bit(monkeypatch):
    trained = []
    for prompt in ({'cpu'}, set()):
        monkeypatch.setattr(waiting, 'PROMPT', prompt)
        # not Lipschitz, whose last step is another one on a GPU
        model, data = model_and_data(rcka=ENTRIES['rcka'], nd=ENTRIES['nd'])
        optimizer = optimizer_of(model)
        for _ in range(3):
            step(model, data, optimizer)
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name
