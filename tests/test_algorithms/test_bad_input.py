"""Every mistake is told before the first iteration, with its remedy."""

import pytest
import torch
from mmengine.registry import MODELS

from tests.helpers.tiny_detectors import build, distill, fcos, losses, rcka


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=build(fcos(8)).state_dict()), path)
    return str(path)


def test_teacher_is_loaded_to_the_last_key(checkpoint):
    model = distill(teacher_ckpt=checkpoint)
    for key, value in torch.load(checkpoint)['state_dict'].items():
        assert torch.equal(model.teacher.state_dict()[key], value)


def test_module_prefix_is_taken_off(tmp_path):
    state = build(fcos(8)).state_dict()
    path = tmp_path / 'ddp.pth'
    torch.save({f'module.{key}': value for key, value in state.items()}, path)
    model = distill(teacher_ckpt=str(path))
    assert torch.equal(model.teacher.backbone.conv1.weight, state['backbone.conv1.weight'])


@pytest.mark.parametrize('value', [None, ''])
def test_checkpoint_left_out(value):
    with pytest.raises(ValueError, match='Expected teacher_ckpt to be the path or URL'):
        distill(teacher_ckpt=value)


def test_checkpoint_missing():
    with pytest.raises(FileNotFoundError, match="got 'nowhere.pth'"):
        distill(teacher_ckpt='nowhere.pth')


@pytest.mark.parametrize('content', [b'', b'not a checkpoint' * 100])
def test_checkpoint_corrupt(tmp_path, content):
    path = tmp_path / 'broken.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='readable checkpoint'):
        distill(teacher_ckpt=str(path))


def test_checkpoint_cut_short(tmp_path, checkpoint):
    with open(checkpoint, 'rb') as stream:
        content = stream.read()
    path = tmp_path / 'half.pth'
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='readable checkpoint'):
        distill(teacher_ckpt=str(path))


def test_checkpoint_of_another_architecture(checkpoint):
    with pytest.raises(
        ValueError,
        match=r'\d+ missing, \d+ unexpected.*'
        'allow_teacher_mismatch=True',
    ):
        distill(teacher=fcos(8, **{'backbone.depth': 34}), teacher_ckpt=checkpoint)


def test_checkpoint_of_another_class_count(checkpoint):
    with pytest.raises(ValueError, match=r'reshaped: .*conv_cls.* \(\(3, 16, 3, 3\) in the file, \(5, 16, 3, 3\)'):
        distill(teacher=fcos(8, num_classes=5), teacher_ckpt=checkpoint)


def test_mismatch_allowed_by_the_config(checkpoint):
    model = build(
        dict(
            type='kd_ext.DetectionDistill',
            student=fcos(),
            teacher=fcos(8, num_classes=5),
            teacher_ckpt=checkpoint,
            allow_teacher_mismatch=True,
            distill=dict(rcka=rcka()),
        )
    )
    assert torch.equal(
        model.teacher.backbone.conv1.weight, torch.load(checkpoint)['state_dict']['backbone.conv1.weight']
    )


@pytest.mark.parametrize(
    ('teacher', 'match'),
    [
        ('configs/fcos_r18_shape.py', 'Did you mean: .*fcos_r18'),
        ('nowhere/fcos.py', r"got 'nowhere/fcos.py'\. In /"),
        ('mmdet::fcos/fcos_r1001_fpn.py', 'Did you mean: .*fcos'),
        ('mmdit::fcos/fcos_r50.py', 'the package of teacher .* Did you mean: .*mmdet'),
        (3, 'Expected teacher to be a config path'),
    ],
)
def test_teacher_config_not_found(teacher, match):
    with pytest.raises((FileNotFoundError, TypeError), match=match):
        distill(teacher=teacher)


@pytest.mark.parametrize(
    ('at', 'match'),
    [
        ('nek', 'Did you mean: neck'),
        ('backbone.layer9', r'Did you mean: .*backbone\.layer'),
        ('bbox_head.cls_conv.0', r'Did you mean: .*bbox_head\.cls_convs\.0'),
        ('', 'Expected at to be a tap'),
        (None, 'Expected at to be a tap'),
    ],
)
def test_unknown_tap_or_module(at, match):
    with pytest.raises(ValueError, match=match):
        distill(rcka=rcka(at=at))


def test_module_of_one_model_only():
    with pytest.raises(ValueError, match='module of the teacher FCOS'):
        distill(student=fcos(**{'bbox_head.stacked_convs': 2}), rcka=rcka(at='bbox_head.cls_convs.1'))


@pytest.mark.parametrize('levels', [(3,), (-1,), (0, 7), (), ('0',)])
def test_level_out_of_range(levels):
    with pytest.raises(ValueError, match=r'levels to be within 0\.\.2'):
        distill(rcka=rcka(levels=levels))


@pytest.mark.parametrize('name', ['rc.ka', 'rcka loss', '', 3])
def test_name_that_makes_no_log_key(name):
    with pytest.raises(ValueError, match='contains "loss"'):
        _distill_named(name)


def _distill_named(name):
    return build(
        dict(
            type='kd_ext.DetectionDistill',
            student=fcos(),
            teacher=fcos(8),
            teacher_ckpt='random',
            distill={name: rcka()},
        )
    )


@pytest.mark.parametrize(
    ('entry', 'match'),
    [
        (dict(at='neck'), 'a dict with type and at'),
        (dict(type='kd_ext.RCKALoss'), 'told where to read'),
        (dict(type='kd_ext.RCKLoss', at='neck'), r'Did you mean: kd_ext\.RCKALo'),
        (dict(type='mmrazor.PKDLos', at='neck'), r'Did you mean: mmrazor\.PKD'),
        (rcka(patch=3), "arguments of RCKALoss.*'patch'"),
        (rcka(patch_size=0), 'patch_size to be a whole number'),
        (rcka(loss_weight=-1), 'loss_weight to be a finite number >= 0'),
        (dict(type='mmdet.FPN', at='neck', in_channels=[1], out_channels=1, num_outs=1), 'a loss whose forward takes'),
        (dict(type='mmrazor.DKDLoss', at='neck'), "'embedding' or 'logits', where regions have labels"),
    ],
)
def test_entries_that_cannot_be_built(entry, match):
    with pytest.raises(ValueError, match=match):
        distill(rcka=entry)


@pytest.mark.parametrize('value', [None, {}, 'rcka', [rcka()]])
def test_no_entries(value):
    with pytest.raises(ValueError, match='at least one named loss'):
        build(
            dict(type='kd_ext.DetectionDistill', student=fcos(), teacher=fcos(8), teacher_ckpt='random', distill=value)
        )


@pytest.mark.parametrize(
    'entries',
    [
        dict(nckd=dict(type='kd_ext.NCKDLoss', at='embedding'), nckd_nc1=rcka()),
        dict(a=dict(type='kd_ext.NCKDLoss', at='embedding'), a_nc2=dict(type='kd_ext.NDLoss', at='embedding')),
    ],
)
def test_entries_with_one_log_key(entries):
    with pytest.raises(ValueError, match=r'log keys of distill .*distill\.loss_(nckd_nc1|a_nc2).*Rename'):
        distill(**entries)


@MODELS.register_module(force=True)
class UndeclaredParts(torch.nn.Module):
    """Gives parts that nothing says before it runs."""

    def forward(self, preds_S, preds_T):
        return dict(b=(preds_S - preds_T).square().mean())


def test_parts_that_nothing_declares_collide_at_the_first_step():
    model = distill(a=dict(type='UndeclaredParts', at='neck'), a_b=rcka())
    with pytest.raises(ValueError, match=r'distill\.loss_a_b of two entries.*Rename'):
        losses(model)


@pytest.mark.parametrize('levels', [(1, 1), ((0, 0), (1, 1), (0, 0)), (0, (0, 0))])
def test_the_same_pair_of_levels_twice(levels):
    with pytest.raises(ValueError, match=r'rcka\.levels .*pair of levels twice.*level_weights'):
        distill(rcka=rcka(levels=levels))


@pytest.mark.parametrize('role', ['student', 'teacher'])
def test_more_or_fewer_calls_than_the_probe_saw(role):
    model = distill(rcka=rcka(at='bbox_head.cls_convs.0'))
    head = getattr(model, role).bbox_head
    forward = head.forward
    # the probe saw three levels; two are left in the training
    head.forward = lambda maps: forward(maps[:2])
    head.get_targets = None  # not reached
    with pytest.raises(ValueError, match=r"bbox_head\.cls_convs\.0' in a training step .* 3, .*got 2.*equally often"):
        with model.distiller.reading(model.student) as seen:
            model.student(torch.zeros(1, 3, 64, 64), mode='tensor')
        (one,) = model.distiller.teacher_passes().values()
        one.run(model.teacher, torch.zeros(1, 3, 64, 64), None)
        model.distiller(seen, dict(teacher=one.read(seen)), torch.tensor(1.0))


def test_a_shared_head_that_runs_at_more_levels_in_the_teacher():
    # strides 8, 16, 32 under 8, 16, 32, 64, 128: the teacher's pass must not end after three calls
    teacher = fcos(8, **{'neck.num_outs': 5, 'bbox_head.strides': [8, 16, 32, 64, 128]})
    teacher.bbox_head.regress_ranges = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))
    entry = rcka(at='bbox_head.cls_convs.0', levels=((0, 3), (1, 4)))
    model = distill(teacher=teacher, rcka=entry)
    assert float(losses(model)['distill.loss_rcka'].detach()) > 0
