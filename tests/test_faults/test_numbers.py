"""No number that is not finite, and no object too small, without a name."""

import contextlib
import copy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from kd_ext import recipes
from kd_ext.errors import is_ours
from tests.helpers import tiny_detectors as tiny

METHODS = {name: recipes.distill_entries([name]) for name in recipes.METHODS if '++' not in name}
METHODS['rcka']['rcka']['patch_size'] = 2
METHODS['logit_cka'] = dict(cka=dict(type='kd_ext.LogitCKALoss', at='logits'))
METHODS['ofd'] = dict(
    ofd=dict(
        type='mmrazor.OFDLoss',
        at='pre_relu',
        mul_factor=0.01,
        connector=dict(type='kd_ext.ConvBNConnector'),
        teacher_connector=dict(type='kd_ext.RunningMarginConnector'),
    )
)
DETECTORS = dict(fcos=tiny.fcos, faster_rcnn=tiny.faster_rcnn)
PLACES = ('backbone', 'neck', 'embedding', 'logits')


@pytest.fixture(autouse=True)
def iteration():
    info = MessageHub.get_current_instance()
    info.update_info('iter', 17)
    yield
    info.runtime_info.pop('iter')


def build(detector, method):
    make = DETECTORS[detector]
    return tiny.distill(make(), make(8, 24), **METHODS[method]).train()


@contextlib.contextmanager
def spoiled(model, place, value):
    """With one parameter spoiled that only what comes behind it sees."""
    dense = hasattr(model, 'bbox_head')
    head = model.bbox_head if dense else model.roi_head.bbox_head
    parameter = dict(
        backbone=lambda: model.backbone.conv1.weight,
        neck=lambda: model.neck.fpn_convs[1].conv.bias,
        embedding=lambda: head.cls_convs[0].conv.weight if dense else head.shared_fcs[1].bias,
        logits=lambda: (head.conv_cls if dense else head.fc_cls).bias,
    )[place]()
    one = parameter.detach().view(-1)[:1]
    before = one.clone()
    one.fill_(value)
    yield
    one.copy_(before)


def reads(entry, place):
    """Whether an entry sees what comes behind a place."""
    order = dict(backbone=0, pre_relu=0, neck=1, embedding=2, logits=3)
    return order[entry['at']] >= order[place]


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(('detector', 'value'), [('fcos', float('nan')), ('faster_rcnn', float('inf'))])
def test_spoiled_weights_are_named(detector, value, method):
    original = build(detector, method)
    for role in ('student', 'teacher'):
        for place in PLACES:
            model = copy.deepcopy(original)  # with the same teacher
            with spoiled(getattr(model, role), place, value):
                check_named(model, method, role, place)


def check_named(model, method, role, place):
    seen = [name for name, entry in METHODS[method].items() if reads(entry, place)]
    if not seen and role == 'teacher':  # nobody looks there
        assert all(bool(torch.isfinite(item).all()) for key, item in tiny.losses(model).items() if 'distill' in key)
        return
    with pytest.raises(FloatingPointError) as info:
        tiny.losses(model)
    text = str(info.value)
    assert 'at iteration 17 to be finite' in text
    if not seen:
        assert text.startswith('Expected student.loss')
        return
    assert any(f'distill.loss_{name}' in text for name in seen)
    assert f'the {role}' in text, text
    assert ('teacher_ckpt' in text) is (role == 'teacher')


@pytest.mark.parametrize('method', ['rcka', 'nd', 'nckd', 'kd', 'lipschitz'])
def test_a_term_by_itself_is_named(method, monkeypatch):
    entries = {**METHODS['pkd'], **METHODS[method]}
    model = tiny.distill(tiny.fcos(), tiny.fcos(8, 24), **entries)
    (term,) = set(METHODS[method])
    loss = model.distiller.terms[term].loss
    forward = loss.forward

    def broken(*args, **kwargs):
        value = forward(*args, **kwargs)
        return (
            {key: item * float('nan') for key, item in value.items()}
            if isinstance(value, dict)
            else value * float('nan')
        )

    monkeypatch.setattr(loss, 'forward', broken)
    with pytest.raises(FloatingPointError, match=f'distill.loss_{term}'):
        tiny.losses(model)


def test_the_students_own_loss_is_named_with_its_images():
    model = build('fcos', 'rcka')
    data = tiny.batch()
    data['data_samples'][1].set_metainfo(dict(img_path='data/two.jpg'))
    forward = model.student.bbox_head.loss_bbox.forward
    model.student.bbox_head.loss_bbox.forward = lambda *args, **kwargs: forward(*args, **kwargs) * float('inf')
    with pytest.raises(
        FloatingPointError,
        match=(
            r'student\.loss_bbox at iteration 17 to be finite, but got inf '
            r'on data/two\.jpg\.'
        ),
    ):
        tiny.losses(model, data)
    model.distillation_stopped = True
    with pytest.raises(FloatingPointError, match='student'):
        tiny.losses(model, data)
    # a gradient scaler leaves such a step out
    with torch.autocast('cpu', dtype=torch.float16):
        found = tiny.losses(model, data)
    assert not bool(torch.isfinite(found['student.loss_bbox']))


@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
def test_spoiled_teacher_file(tmp_path, value):
    teacher = tiny.build(tiny.fcos(8))
    with torch.no_grad():
        teacher.neck.fpn_convs[1].conv.weight[:2, 0, 0, 0] = value
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=teacher.state_dict()), path)
    with pytest.raises(
        ValueError,
        match=(
            r'teacher_ckpt to be of finite weights.*2 of \d+ values of '
            r'neck\.fpn_convs\.1\.conv\.weight'
        ),
    ):
        tiny.distill(teacher_ckpt=str(path))


BOXES = {
    'none': [],
    'one pixel': [[10.0, 10.0, 11.0, 11.0]],
    'no width': [[10.0, 10.0, 10.0, 30.0]],
    'no area': [[10.0, 10.0, 10.0, 10.0]],
    'outside': [[200.0, 200.0, 230.0, 230.0]],
    'tiny and usual': [[10.0, 10.0, 10.01, 10.01], [4.0, 4.0, 30.0, 34.0]],
}


# mmdet's own loss takes the logarithm of a side; its data sets leave such
# boxes out
ENDLESS = [('faster_rcnn', 'no width'), ('faster_rcnn', 'no area')]
FINITE = [(detector, boxes) for detector in DETECTORS for boxes in BOXES if (detector, boxes) not in ENDLESS]


def with_boxes(boxes):
    data = tiny.batch()
    corners = torch.tensor(BOXES[boxes]).view(-1, 4)
    for sample in data['data_samples']:
        sample.gt_instances = InstanceData(bboxes=corners.clone(), labels=torch.arange(len(corners)))
    return data


@pytest.mark.parametrize(('detector', 'boxes'), ENDLESS)
def test_boxes_that_the_student_cannot_learn(detector, boxes):
    with pytest.raises(FloatingPointError, match=(r'student\.loss_bbox at iteration 17 .* the boxes of these')):
        tiny.losses(build(detector, 'nd'), with_boxes(boxes))


@pytest.mark.parametrize(('detector', 'boxes'), FINITE)
def test_boxes_that_teach_little(detector, boxes):
    """Every method at once: finite values and gradients."""
    entries = {key: entry for method in METHODS.values() for key, entry in method.items()}
    make = DETECTORS[detector]
    model = tiny.distill(make(), make(8, 24), **entries).train()
    for _ in range(2):  # the second meets what the first has left
        losses = tiny.losses(model, with_boxes(boxes))
        total = model.parse_losses(losses)[0]
        model.zero_grad()
        total.backward()
        assert bool(torch.isfinite(total))
        for name, p in model.named_parameters():
            assert p.grad is None or bool(torch.isfinite(p.grad).all()), name
        for name, value in model.distiller.state_dict().items():
            assert bool(torch.isfinite(value.float()).all()), name
    if boxes == 'none' and detector == 'fcos':
        for key in ('nd', 'kd', 'nckd_nc1', 'cka'):
            assert float(losses[f'distill.loss_{key}'].detach()) == 0


@pytest.mark.parametrize('how', ['gone', 'empty', 'cut short', 'text', 'folder', 'other'])
def test_teacher_file_that_cannot_be_read(tmp_path, how):
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=tiny.build(tiny.fcos(8)).state_dict()), path)
    content = path.read_bytes()
    path.unlink()
    if how == 'folder':
        path.mkdir()
    elif how == 'other':
        torch.save([1, 2], path)
    elif how != 'gone':
        path.write_bytes({'empty': b'', 'text': b'not found\n' * 9, 'cut short': content[: len(content) // 2]}[how])
    with pytest.raises((FileNotFoundError, ValueError)) as info:
        tiny.distill(teacher_ckpt=str(path))
    assert is_ours(info.value)
    assert str(info.value).startswith('Expected teacher_ckpt to be a ')
    assert str(path) in str(info.value)
