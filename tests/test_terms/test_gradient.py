"""A term that cannot move the student stops the training at its first step."""

import pytest
import torch
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from kd_ext.terms.reach import reaches_student
from tests.helpers import training_clock as clock
from tests.helpers.tiny_detectors import batch, distill, fcos, losses, rcka

ND = dict(type='kd_ext.NDLoss', at='embedding')
NO_GRADIENT = 'reaches a parameter of the student'


@MMENGINE_MODELS.register_module(force=True)
class DetachingLoss(nn.Module):
    """A loss with a mistake: what it gives has no graph."""

    def forward(self, preds_S, preds_T):
        return (preds_S.detach() - preds_T).square().mean()


def frozen(stages):
    return fcos(**{'backbone.frozen_stages': stages})


def checkpointed():
    return fcos(**{'backbone.with_cp': True})


@pytest.mark.parametrize(
    'student, entry, match',
    [
        (frozen(3), rcka(at='backbone', levels=(0, 1)), r'no gradient from backbone\[0\], backbone\[1\]\. .*later pl'),
        # a connector with parameters of its own gives the term a gradient, but not the student
        (frozen(3), rcka(at='backbone', levels=(0,), connector=dict(type='kd_ext.ConvBNConnector')), 'Frozen stages'),
        (
            checkpointed(),
            rcka(at='backbone.layer3.0.conv1'),
            r'from backbone\.layer3\.0\.conv1\[0\]\. .*with_cp=False',
        ),
        (None, dict(type='DetachingLoss', at='neck'), 'but got a value .* detaches the features'),
    ],
)
def test_a_term_without_gradient_is_refused(student, entry, match):
    model = distill(student, x=entry).train()
    with pytest.raises(RuntimeError, match=rf'distill\.x .*{NO_GRADIENT}.*{match}'):
        losses(model)


def test_regions_of_a_frozen_student():
    model = distill(nd=ND).train()
    for parameter in model.student.parameters():
        parameter.requires_grad = False
    with pytest.raises(RuntimeError, match=rf'distill\.nd .*{NO_GRADIENT}.*from embedding'):
        losses(model)


@pytest.mark.parametrize('student', [checkpointed(), frozen(2)])
def test_a_gradient_through_checkpoints_and_after_frozen_stages(student):
    model = distill(student, rcka=rcka(), nd=ND, backbone=rcka(at='backbone')).train()
    values = losses(model)  # torch.autograd.grad raises here under with_cp
    model.parse_losses(values)[0].backward()
    assert not model.distiller._unmoved


def test_some_levels_without_gradient_are_a_warning(monkeypatch):
    told = []
    monkeypatch.setattr('kd_ext.algorithms.distiller.print_log', lambda text, *rest: told.append(text))
    model = distill(frozen(2), rcka=rcka(at='backbone')).train()
    losses(model)
    losses(model)
    assert told[1:] == ['distill.rcka: backbone[0] of the student have no gradient']


def test_a_term_that_is_off_is_looked_at_when_it_begins():
    model = distill(frozen(3), ok=rcka(), x=rcka(at='backbone', levels=(0,), schedule=dict(begin=2))).train()
    for iteration in range(2):
        clock.put(iteration)
        losses(model)
    clock.put(2)
    with pytest.raises(RuntimeError, match=rf'distill\.x .*{NO_GRADIENT}'):
        losses(model)


def test_batches_without_regions_come_first():
    model, empty = distill(nd=ND).train(), batch()
    for sample in empty['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    for parameter in model.student.parameters():
        parameter.requires_grad = False
    losses(model, empty)  # there is nothing to compare, and so nothing to say
    with pytest.raises(RuntimeError, match=NO_GRADIENT):
        losses(model)


def test_it_is_looked_at_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        'kd_ext.algorithms.distiller.reaches_student', lambda *args: calls.append(1) or reaches_student(*args)
    )
    model = distill(rcka=rcka(), nd=ND)
    for _ in range(3):
        losses(model)
    assert len(calls) == 2
    model = distill(frozen(3), rcka=rcka(at='backbone', levels=(0,)))
    losses(model.eval())  # only a training step has to move something
    with torch.no_grad():
        losses(model.train())
    assert len(calls) == 2


def test_the_walk():
    weight, own = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
    hidden = torch.utils.checkpoint.checkpoint(lambda x: 2 * x, weight * 1, use_reentrant=True)
    assert reaches_student([own * hidden], [own])
    assert not reaches_student([own * hidden.detach()], [own])
    assert not reaches_student([torch.ones(())], [own])
