"""What the wiring reads off a loss, once."""

import inspect

import pytest
import torch
from torch import nn

from kd_ext import losses
from kd_ext.losses.protocol import DistillationLoss, LossTraits, describe_loss
from kd_ext.terms.entry import split_entry
from tests.helpers.tiny_detectors import distill, faster_rcnn
from tests.helpers.tiny_detectors import losses as step


def traits_of(forward, **attributes):
    module = nn.Module()
    module.forward = forward
    for name, value in attributes.items():
        setattr(module, name, value)
    return describe_loss(module)


@pytest.mark.parametrize(
    'forward,teacher,by_name,needs',
    [
        (lambda preds_S, preds_T: 0, 'preds_T', {}, ()),
        (lambda x, y, weight=None: 0, 'y', {}, ()),
        (lambda s, t, gt_labels: 0, 't', {'gt_labels': 'labels'}, ('gt_labels',)),
        (lambda s, t, *, labels=None: 0, 't', {'labels': 'labels'}, ()),
        (lambda s, labels: 0, None, {'labels': 'labels'}, ('labels',)),
        (lambda s, gt_label: 0, None, {'gt_label': 'labels'}, ('gt_label',)),
        # mmdet.CrossEntropyLoss: neither weight nor the label is the teacher's
        (lambda cls_score, label, weight=None, avg_factor=None: 0, None, {'label': 'labels'}, ('label',)),
        (
            lambda s, labels, class_means: 0,
            None,
            dict(labels='labels', class_means='class_means'),
            ('labels', 'class_means'),
        ),
        (lambda s, labels, t: 0, 't', {'labels': 'labels'}, ('labels',)),
    ],
)
def test_parameters(forward, teacher, by_name, needs):
    traits = traits_of(forward)
    assert (traits.teacher, traits.by_name, traits.needs) == (teacher, by_name, needs)
    args, named = traits.arguments('S', 'T', labels='y', class_means='m')
    given = inspect.signature(forward).bind(*args, **named).arguments
    assert list(given.values()).count('T') == (teacher is not None)
    assert next(iter(given.values())) == 'S'
    for name, value in given.items():
        assert name not in by_name or value == dict(labels='y', class_means='m')[by_name[name]]


@pytest.mark.parametrize(
    'forward,text',
    [
        (lambda: 0, 'student and teacher features'),
        (lambda preds_T: 0, 'student and teacher features'),
        (lambda labels, preds_S: 0, 'student and teacher features'),
        (lambda *features: 0, 'student and teacher features'),
        (lambda s, t, data_samples: 0, 'Nothing here knows data_samples'),
    ],
)
def test_no_distillation_loss(forward, text):
    with pytest.raises(ValueError, match=text):
        traits_of(forward)


def test_attributes_have_the_defaults_of_the_protocol():
    traits = traits_of(lambda s, t: 0)
    for name in ('parts', 'relates_levels', 'fits_widths', 'least_levels'):
        assert getattr(traits, name) == getattr(DistillationLoss, name)
    assert traits.setup == {}
    traits = traits_of(lambda s, t: 0, parts=['a'], least_levels=2, setup=lambda num_levels, width=3: None)
    assert traits.parts == ('a',) and traits.least_levels == 2
    assert traits.setup == dict(num_levels=True, width=False)


@pytest.mark.parametrize('name', [name for name in losses.__all__ if name.endswith('Loss')])
def test_our_own_follow_it(name):
    traits = describe_loss(getattr(losses, name)())
    assert isinstance(traits, LossTraits) and traits.call.startswith(f'{name}.forward(preds_S, ')
    facts = {'num_levels', 'student_widths', 'teacher_widths', 'num_classes', 'width', 'use_sigmoid'}
    assert set(traits.setup) <= facts


@pytest.mark.parametrize('at', ['logits', 'embedding'])
def test_labels_are_no_teacher_features(at):
    model = distill(faster_rcnn(), faster_rcnn(8), task=dict(type='mmdet.CrossEntropyLoss', at=at))
    seen = []
    term = model.distiller.terms['task']
    term.loss.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    ran = []
    model.teacher.backbone.register_forward_pre_hook(lambda *args: ran.append(1))
    step(model)
    (((features,), named),) = seen
    assert set(named) == {'label'} and named['label'].dtype == torch.int64 and len(features) == len(named['label'])
    assert not ran and not term.needs_teacher


class TestNestedLoss:
    flat = dict(type='kd_ext.RCKALoss', at='neck', levels=(0,), patch_size=2)

    def test_is_the_flat_form(self):
        nested = dict(at='neck', levels=(0,), loss=dict(type='kd_ext.RCKALoss', patch_size=2))
        assert split_entry('rcka', nested) == split_entry('rcka', self.flat)
        assert split_entry('rcka', dict(nested, _scope_='kd_ext'))[0]['_scope_'] == 'kd_ext'
        one, other = (step(distill(rcka=entry))['distill.loss_rcka'] for entry in (self.flat, nested))
        assert torch.equal(one, other) and one > 0

    def test_arguments_may_be_called_like_settings(self):
        entry = dict(at='neck', loss=dict(type='x', levels=3, at='here', stage=1))
        assert split_entry('own', entry) == (entry['loss'], dict(at='neck'))

    @pytest.mark.parametrize('stray', [dict(type='kd_ext.RCKALoss'), dict(patch_size=2), dict(loss_weight=2.0)])
    def test_mixing_both_is_refused(self, stray):
        (name,) = stray
        with pytest.raises(ValueError, match=rf'{name} beside loss=.*Arguments of the loss go into loss=dict'):
            split_entry('rcka', dict(at='neck', loss=dict(type='kd_ext.RCKALoss'), **stray))

    @pytest.mark.parametrize('loss', [dict(patch_size=2), 'kd_ext.RCKALoss', None])
    def test_without_a_type(self, loss):
        with pytest.raises(ValueError, match='distill.rcka to be a dict with type and at'):
            split_entry('rcka', dict(at='neck', loss=loss))

    def test_a_flat_argument_may_be_called_loss(self):
        assert split_entry('own', dict(type='x', at='neck', loss='l1'))[0] == dict(type='x', loss='l1')
