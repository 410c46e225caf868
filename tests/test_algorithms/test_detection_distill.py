"""Who runs when, under which mode, and what gets a gradient."""

import copy

import pytest
import torch

from kd_ext.teachers.inputs import InputAdapter
from tests.helpers.tiny_detectors import batch, build, distill, faster_rcnn, fcos, losses, rcka


def task_and_terms(losses):
    return ({k for k in losses if k.startswith('student.')}, {k for k in losses if k.startswith('distill.')})


def test_terms_are_named_and_counted_by_mmengine():
    model = distill()
    values = losses(model)
    task, terms = task_and_terms(values)
    assert terms == {'distill.loss_rcka', 'distill.share_rcka'}
    total, logged = model.parse_losses(values)
    parts = sum(float(values[k].detach()) for k in task if 'loss' in k)
    term = float(values['distill.loss_rcka'].detach())
    assert term > 0
    assert float(total.detach()) == pytest.approx(parts + term, rel=1e-6)
    assert float(values['distill.share_rcka']) == pytest.approx(term / (parts + term), rel=1e-5)


def test_gradient_reaches_the_student_backbone_and_not_the_teacher():
    model = distill()
    losses(model)['distill.loss_rcka'].backward()
    weight = model.student.backbone.conv1.weight
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())


def test_teacher_equal_to_the_student_leaves_nothing_to_learn():
    student = build(fcos())
    model = distill(student=student, teacher=copy.deepcopy(student), teacher_ckpt=None)
    model.eval()  # same batch norm mode as the teacher
    assert float(losses(model)['distill.loss_rcka'].detach()) < 1e-5


def test_teacher_stays_in_eval_whatever_the_mode():
    model = distill()
    for mode in (True, False, True):
        model.train(mode)
        assert not any(m.training for m in model.teacher.modules())
    before = copy.deepcopy(model.teacher.state_dict())
    losses(model)
    after = model.teacher.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_teacher_is_no_parameter_no_state_no_module_and_no_copy():
    model = distill()
    own = {id(p) for p in model.parameters()}
    assert not own & {id(p) for p in model.teacher.parameters()}
    assert model.teacher not in list(model.modules())
    assert not any('teacher' in key for key in model.state_dict())
    copied = copy.deepcopy(model)
    assert copied.teacher is model.teacher
    assert copied.student is not model.student
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert not {id(p) for group in optimizer.param_groups for p in group['params']} & {
        id(p) for p in model.teacher.parameters()
    }


@pytest.mark.parametrize('at', ['backbone', 'neck'])
def test_teacher_runs_only_as_far_as_the_taps_ask(at):
    model = distill(rcka=rcka(at=at))
    ran = []
    for name in ('neck', 'bbox_head'):
        getattr(model.teacher, name).register_forward_pre_hook(lambda module, args, name=name: ran.append(name))
    losses(model)
    assert ran == (['neck'] if at == 'neck' else [])


@pytest.mark.parametrize(
    'teacher, entry, order',
    [
        (fcos, rcka(), 'TS'),
        (fcos, dict(type='kd_ext.NDLoss', at='embedding'), 'TS'),
        (fcos, rcka(at='bbox_head.cls_convs.0'), 'TS'),
        # its own loss on regions of its own might change the samples
        (faster_rcnn, dict(type='kd_ext.NCKDLoss', at='embedding'), 'ST'),
    ],
)
def test_teacher_runs_before_the_student_where_it_can(teacher, entry, order):
    # what it drops is then not on top of the student's activations
    model, ran = distill(teacher=teacher(8), kd=entry), []
    for role, one in (('T', model.teacher), ('S', model.student)):
        one.backbone.register_forward_pre_hook(lambda module, args, role=role: ran.append(role))
    losses(model)
    assert ''.join(ran) == order


def test_no_hook_stays_on_either_model():
    model = distill()
    losses(model)
    for module in [*model.student.modules(), *model.teacher.modules()]:
        assert not module._forward_hooks


def test_student_of_a_seed_is_the_same_without_distillation():
    alone, model = build(fcos(), seed=3), distill(seed=3)
    for (name, one), (key, two) in zip(alone.state_dict().items(), model.state_dict().items()):
        assert name == key and torch.equal(one, two)


def test_teacher_follows_to_another_dtype():
    model = distill().double()
    assert next(model.teacher.parameters()).dtype == torch.float64


def test_widths_and_sizes_are_connected_automatically():
    teacher = fcos(8, width=24)
    teacher.neck.in_channels = [8, 16, 32]
    teacher.backbone.out_indices = (0, 1, 2)  # strides 4, 8, 16
    model = distill(teacher=teacher, rcka=rcka(levels=(0, 1, 2)))
    assert [tuple(c.projector.weight.shape) for c in model.distiller.terms['rcka'].connectors] == [(24, 16, 1, 1)] * 3
    losses(model)['distill.loss_rcka'].backward()
    for parameter in model.distiller.parameters():
        assert parameter.grad is not None


def test_equal_widths_need_no_parameters():
    assert not list(distill().distiller.parameters())


def test_levels_choose():
    model = distill(rcka=rcka(levels=(1,)))
    assert model.distiller.terms['rcka'].pairs == [(1, 1)]


def test_head_module_gives_a_level_a_call():
    model = distill(rcka=rcka(at='bbox_head.cls_convs.0'))
    assert len(model.distiller.terms['rcka'].pairs) == 3
    assert float(losses(model)['distill.loss_rcka'].detach()) > 0


def test_razor_losses_in_the_same_place():
    model = distill(
        pkd=dict(type='mmrazor.PKDLoss', at='neck', loss_weight=2.0),
        cwd=dict(type='mmrazor.ChannelWiseDivergence', at='neck', levels=(0,)),
    )
    values = losses(model)
    for name in ('pkd', 'cwd'):
        value = values[f'distill.loss_{name}']
        assert float(value.detach()) > 0 and value.requires_grad


def test_loss_that_relates_levels_gets_them_all():
    model = distill(lipschitz=dict(type='kd_ext.LipschitzLoss', at='backbone', relative=True))
    losses(model)['distill.loss_lipschitz'].backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0


def test_rcka_in_razors_configurable_distiller():
    model = build(
        dict(
            type='mmrazor.SingleTeacherDistill',
            architecture=fcos(),
            teacher=fcos(8),
            distiller=dict(
                type='mmrazor.ConfigurableDistiller',
                student_recorders=dict(fpn=dict(type='mmrazor.ModuleOutputs', source='neck')),
                teacher_recorders=dict(fpn=dict(type='mmrazor.ModuleOutputs', source='neck')),
                distill_losses=dict(loss_rcka=dict(type='kd_ext.RCKALoss', patch_size=2)),
                loss_forward_mappings=dict(
                    loss_rcka=dict(
                        preds_S=dict(from_student=True, recorder='fpn'),
                        preds_T=dict(from_student=False, recorder='fpn'),
                    )
                ),
            ),
        )
    )
    value = losses(model)['distill.loss_rcka']
    assert float(value.detach()) > 0 and value.requires_grad


def test_two_stage_student_under_a_one_stage_teacher():
    model = distill(student=faster_rcnn(), teacher=fcos(8), rcka=rcka(levels=(0, 1)))
    values = losses(model)
    assert 'student.loss_rpn_cls' in values
    assert float(values['distill.loss_rcka'].detach()) > 0


def test_stopped_distillation_costs_no_teacher_and_keeps_every_gradient():
    model = distill(teacher=fcos(8, width=24))
    model.distillation_stopped = True
    ran = []
    model.teacher.backbone.register_forward_pre_hook(lambda *args: ran.append(1))
    values = losses(model)
    model.parse_losses(values)[0].backward()
    assert not ran
    assert float(values['distill.loss_rcka'].detach()) == 0
    for parameter in model.distiller.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


def test_razors_stop_hook():
    from unittest.mock import Mock

    from mmrazor.engine.hooks import StopDistillHook

    model = distill()
    StopDistillHook(stop_epoch=2).before_train_epoch(Mock(model=model, epoch=2))
    assert model.distillation_stopped


def test_losses_compute_in_fp32_under_autocast():
    model = distill()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        values = losses(model)
    assert values['distill.loss_rcka'].dtype == torch.float32
    assert torch.isfinite(values['distill.loss_rcka'])


def test_nan_in_a_feature_names_loss_level_and_iteration():
    from mmengine.logging import MessageHub

    model = distill()
    MessageHub.get_current_instance().update_info('iter', 17)
    with torch.no_grad():
        model.student.neck.fpn_convs[1].conv.bias[0] = float('nan')
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(
        FloatingPointError,
        match=(
            r"loss_rcka at iteration 17 .*level 1 of 'neck': .*student "
            'feature'
        ),
    ):
        model(**data, mode='loss')


def test_nan_in_the_teacher_is_named():
    model = distill()
    with torch.no_grad():
        model.teacher.neck.fpn_convs[2].conv.bias[0] = float('nan')
    with pytest.raises(FloatingPointError, match="level 2 of 'neck': .*teacher feature"):
        losses(model)


class TestInputAdapter:
    def preprocessed(self, **changes):
        cfg = fcos()
        cfg.data_preprocessor.update(changes)
        return build(cfg)

    def test_same_preprocessing_passes_the_batch_on(self):
        model = distill()
        adapt = model.adapters['teacher']
        assert adapt.same
        inputs = torch.rand(2, 3, 8, 8)
        assert adapt(inputs) is inputs

    def test_teacher_sees_what_its_own_preprocessor_makes(self):
        student = self.preprocessed()
        teacher = self.preprocessed(mean=[103.5, 116.3, 123.7], std=[1.0, 2.0, 3.0], bgr_to_rgb=False, pad_value=7)
        adapt = InputAdapter(student, teacher)
        seen = student.data_preprocessor(batch(), True)
        wanted = teacher.data_preprocessor(batch(), True)
        assert not torch.allclose(seen['inputs'], wanted['inputs'])
        torch.testing.assert_close(adapt(seen['inputs'], seen['data_samples']), wanted['inputs'], rtol=1e-4, atol=1e-4)

    def test_student_without_normalisation(self):
        student = self.preprocessed(mean=None, std=None, bgr_to_rgb=False)
        teacher = self.preprocessed()
        seen = student.data_preprocessor(batch(), True)
        wanted = teacher.data_preprocessor(batch(), True)
        torch.testing.assert_close(
            InputAdapter(student, teacher)(seen['inputs'], seen['data_samples']),
            wanted['inputs'],
            rtol=1e-4,
            atol=1e-4,
        )

    def test_the_students_batch_is_not_changed(self):
        adapt = InputAdapter(self.preprocessed(), self.preprocessed(std=[1.0, 2.0, 3.0]))
        seen = self.preprocessed().data_preprocessor(batch(), True)
        before = seen['inputs'].clone()
        adapt(seen['inputs'], seen['data_samples'])
        assert torch.equal(seen['inputs'], before)
