"""Switches of the losses: what each turns off, and values that are no switch."""

import pytest
import torch
from torch.testing import assert_close

from kd_ext import losses
from kd_ext.losses import NCKDLoss, NDLoss, nd_loss
from tests.helpers import tiny_detectors as tiny

FLAGS = [
    ('RCKALoss', 'center'),
    ('LogitCKALoss', 'center'),
    ('FeatureCKALoss', 'center'),
    ('NCKDLoss', 'center'),
    ('NCKDLoss', 'include_background'),
    ('NDLoss', 'include_background'),
    ('NDLoss', 'class_balanced'),
    ('NDLoss', 'direction'),
    ('NDLoss', 'norm'),
    ('LogitKLLoss', 'use_sigmoid'),
    ('LipschitzLoss', 'relative'),
]


@pytest.mark.parametrize('value', ['False', 0, 1.0])
@pytest.mark.parametrize('name,flag', FLAGS)
def test_a_word_is_no_switch(name, flag, value):
    with pytest.raises(ValueError, match=rf'{flag} to be True or False, but got {value!r}'):
        getattr(losses, name)(**{flag: value})


def test_every_switch_is_listed():
    import inspect

    found = {
        (name, p.name)
        for name in losses.__all__
        if name.endswith('Loss')
        for p in inspect.signature(getattr(losses, name)).parameters.values()
        if 'bool' in str(p.annotation)
    }
    assert found == set(FLAGS)


@pytest.mark.parametrize('weight', [10**400, -(10**400), float('nan'), True, '1'])
def test_no_weight(weight):
    with pytest.raises(ValueError, match='loss_weight to be a finite number >= 0'):
        NDLoss(loss_weight=weight)


def test_factors_of_nd():
    # s = (3, 4), c = (1, 0), ||t|| = 10 and 1: cosine 3/5; norm 5/10 and 1
    student = torch.tensor([[3.0, 4.0], [3.0, 4.0]], requires_grad=True)
    args = torch.tensor([[6.0, 8.0], [0.0, 1.0]]), torch.zeros(2).long(), torch.tensor([[7.0, 0.0]])
    direction, norm = nd_loss(student, *args, norm=False), nd_loss(student, *args, direction=False)
    assert_close(direction, torch.tensor(0.4))
    assert_close(norm, torch.tensor(0.25))
    (grad,) = torch.autograd.grad(norm, student)
    # -s / ||s|| / 10, halved; nothing for the longer student
    assert_close(grad, torch.tensor([[-0.03, -0.04], [0.0, 0.0]]))
    (grad,) = torch.autograd.grad(direction, student)
    assert_close((grad * student).sum(1), torch.zeros(2), rtol=0, atol=1e-6)  # the length does not matter
    # one region: the whole is the product of its factors
    one = [value[:1] for value in (student, *args)]
    assert_close(1 - nd_loss(*one), (1 - nd_loss(*one, norm=False)) * (1 - nd_loss(*one, direction=False)))
    assert_close(NDLoss(2.0, norm=False)(student, *args), 2 * direction)


def test_nd_without_either():
    with pytest.raises(ValueError, match='direction and norm to be not both False'):
        NDLoss(direction=False, norm=False)


@pytest.mark.parametrize('off,left', [('nc1', 'nc2'), ('nc2', 'nc1')])
def test_terms_of_nckd(off, left):
    entry = dict(type='kd_ext.NCKDLoss', at='embedding')
    both, one = (tiny.distill(nckd=dict(entry, **changes)).train() for changes in ({}, {f'{off}_weight': 0}))
    wanted = tiny.losses(both)
    for model in (one, one):
        found = {key for key in tiny.losses(model) if 'distill.loss' in key}
        assert found == {f'distill.loss_nckd_{left}'}
    assert one.distiller.terms['nckd'].loss.parts == (left,)
    assert set(one.distiller.idle()) == {f'loss_nckd_{left}'}
    again = tiny.distill(nckd=dict(entry, **{f'{off}_weight': 0})).train()
    assert torch.equal(tiny.losses(again)[f'distill.loss_nckd_{left}'], wanted[f'distill.loss_nckd_{left}'])


def test_nckd_without_either():
    with pytest.raises(ValueError, match='nc1_weight and nc2_weight to be not 0 both'):
        NCKDLoss(nc1_weight=0, nc2_weight=0.0)
