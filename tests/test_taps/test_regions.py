"""What region taps read, checked against geometry and recomputation."""

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine import MessageHub
from torch.testing import assert_close

from kd_ext.taps import find_head
from kd_ext.taps.heads import own_loss_mode
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny
from tests.helpers.detector_zoo import read

ROI = [
    'Faster R-CNN',
    'Mask R-CNN',
    'Cascade R-CNN',
    'Double-Head R-CNN',
    'Dynamic R-CNN',
    'HTC',
    'Libra R-CNN',
    'Grid R-CNN',
    'PISA',
    'SABL Faster R-CNN',
]
QUERY = [
    'DETR',
    'Conditional DETR',
    'DAB-DETR',
    'Deformable DETR',
    'DINO',
    'Sparse R-CNN',
    'QueryInst',
    'Mask2Former',
    'MaskFormer',
    'DDQ DETR',
]
DENSE = [name for name in zoo.READ if name not in ROI + QUERY]
# assigned by the box that an anchor predicts or by overlaps of anchors, which
# may lie beside the object
NOT_INSIDE = {'YOLOF', 'SSD', 'RetinaNet', 'SABL RetinaNet', 'YOLACT'}


@pytest.fixture(autouse=True)
def epoch():
    """TOOD assigns labels by epoch, which the training loop makes known."""
    MessageHub.get_current_instance().update_info('epoch', 9)


@pytest.mark.parametrize('name', zoo.READ)
def test_regions_fit_together(name):
    _, head, _, regions = read(name)
    count = len(regions.labels)
    assert count > 0
    assert regions.embeddings.shape == (count, head.width)
    assert regions.logits.shape == (count, head.num_logits)
    assert regions.embeddings.requires_grad
    assert int(regions.labels.min()) >= 0
    assert int(regions.labels.max()) < head.num_labels == (zoo.CLASSES + head.background)


@pytest.mark.parametrize('name', ROI + QUERY)
def test_logits_are_those_of_the_embeddings(name):
    _, head, _, regions = read(name)
    layer = getattr(head, 'layer', None) or head.module.fc_cls
    assert_close(layer(regions.embeddings), regions.logits)


@pytest.mark.parametrize('name', ROI)
def test_proposals_carry_the_label_of_the_box_they_overlap(name):
    _, _, data, regions = read(name)
    for index, sample in enumerate(data['data_samples']):
        mine = regions.places[:, 0] == index
        overlaps = bbox_overlaps(regions.places[mine, 1:], sample.gt_instances.bboxes)
        best, which = overlaps.max(1)
        foreground = regions.labels[mine] < zoo.CLASSES
        assert foreground.any() and (~foreground).any()
        wanted = sample.gt_instances.labels[which]
        assert torch.equal(regions.labels[mine][foreground], wanted[foreground])
        assert (best[foreground] >= 0.5).all()


@pytest.mark.parametrize('name', DENSE)
def test_positives_lie_in_the_box_whose_label_they_carry(name):
    _, _, data, regions = read(name)
    height, width = data['inputs'].shape[2:]
    slack = 0.5 if name in NOT_INSIDE else 0.05
    start = 0
    for size, (image, location, _) in zip(*regions.places):
        stride = max(height / size[0], width / size[1])
        labels = regions.labels[start : start + len(image)]
        start += len(image)
        for one, cell, label in zip(image.tolist(), location.tolist(), labels.tolist()):
            x = (cell % size[1] + 0.5) * stride
            y = (cell // size[1] + 0.5) * stride
            truth = data['data_samples'][one].gt_instances
            box = truth.bboxes[truth.labels == label][0]
            room = slack * (box[2:] - box[:2]).max() + stride / 2
            assert box[0] - room <= x <= box[2] + room
            assert box[1] - room <= y <= box[3] + room
    assert start == len(regions.labels)


@pytest.mark.parametrize('name', QUERY)
def test_one_query_for_each_object(name):
    _, _, data, regions = read(name)
    assert sorted(regions.labels.tolist()) == sorted(
        label for sample in data['data_samples'] for label in sample.gt_instances.labels.tolist()
    )


@pytest.mark.parametrize('name', [name for name in QUERY if name not in ('Sparse R-CNN', 'QueryInst')])
def test_queries_are_those_that_were_matched(name):
    # the scores that the assigner saw, at the queries it labelled
    model = tiny.build(zoo.detector(name)).eval()
    data = model.data_preprocessor(zoo.batch(name), True)
    head = find_head(model, 'student')
    with head.watch() as watch, own_loss_mode(model, head.module):
        model(**data, mode='loss')
    regions = head.regions(watch)
    calls = [
        call
        for call in watch.calls['targets']
        if torch.equal(torch.cat([*call.args[0]])[_matched(call)], regions.logits)
    ]
    assert calls
    for call in calls:
        labels = torch.cat([*call.result[0]])
        assert torch.equal(labels[_matched(call)], regions.labels)


def _matched(call):
    labels = torch.cat([*call.result[0]])
    return (labels >= 0) & (labels < zoo.CLASSES)


@pytest.mark.parametrize('name', ROI + DENSE)
def test_another_model_reads_the_same_regions(name):
    # the same weights at the same places give the same embeddings
    model, head, data, regions = read(name)
    twin = tiny.build(zoo.detector(name))
    twin.eval()  # which returns nothing in LD
    twin.load_state_dict(model.state_dict())
    other = find_head(twin, 'teacher')
    assert other.shares_places(head)
    seen = other.at(twin.extract_feat(data['inputs']), regions.places)
    assert_close(seen.embeddings, regions.embeddings)
    assert_close(seen.logits, regions.logits)


@pytest.mark.parametrize(
    'name, tower',
    [
        ('FCOS', 'reg_convs'),
        ('RetinaNet', 'reg_convs'),
        ('ATSS', 'reg_convs'),
        ('YOLOX', 'multi_level_reg_convs'),
        ('RTMDet', 'reg_convs'),
    ],
)
def test_a_head_does_without_its_boxes_where_scores_are_read(name, tower):
    model, head, data, regions = read(name)
    layers = [layer for layer in getattr(head.module, tower).modules() if isinstance(layer, torch.nn.Conv2d)]
    ran = []
    handles = [layer.register_forward_hook(lambda *_: ran.append(1)) for layer in layers]
    features = model.extract_feat(data['inputs'])
    head.at(features, regions.places)
    assert not ran
    head.module(features)  # nothing stays behind
    for handle in handles:
        handle.remove()
    assert len(ran) >= len(layers)


def test_a_head_of_ones_own_runs_whole():
    # its scores may come from its boxes
    model, head, data, regions = read('FCOS')

    class Own(type(head.module)):
        pass

    head.module.__class__ = Own
    ran = []
    head.module.reg_convs[0].register_forward_hook(lambda *_: ran.append(1))
    head.at(model.extract_feat(data['inputs']), regions.places)
    assert len(ran) == len(regions.places.sizes)


def test_planted_boxes():
    # a teacher of other widths pools its own maps with the student's boxes:
    # painting one box of the image moves that region's embedding alone
    teacher = tiny.build(zoo.detector('Faster R-CNN', 8), seed=1).eval()
    other = find_head(teacher, 'teacher')
    boxes = torch.tensor([[0, 8.0, 8.0, 24.0, 24.0], [0, 96.0, 64.0, 120.0, 88.0], [1, 8.0, 8.0, 24.0, 24.0]])
    features = [torch.zeros(2, zoo.WIDTH, 128 // s, 160 // s) for s in (4, 8, 16, 32, 64)]
    blank = other.at(features, boxes).embeddings
    features[0][0, :, 16:22, 24:30] = 5.0
    painted = other.at(features, boxes).embeddings
    moved = (painted - blank).abs().sum(1) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_stage_of_a_cascade():
    for stage in range(3):
        _, head, _, regions = read('Cascade R-CNN', stage)
        assert head.module is head.roi_head.bbox_head[stage]
        assert_close(head.module.fc_cls(regions.embeddings), regions.logits)
    with pytest.raises(ValueError, match=r'stage to be in 0\.\.2'):
        read('Cascade R-CNN', 3)


def test_a_cascade_teaches_a_plain_student():
    _, head, data, regions = read('Faster R-CNN')
    teacher = tiny.build(zoo.detector('Cascade R-CNN', 8)).eval()
    for stage in (0, 2):
        other = find_head(teacher, 'teacher', stage)
        seen = other.at(teacher.extract_feat(data['inputs']), regions.places)
        assert len(seen.embeddings) == len(regions.labels)


@pytest.mark.parametrize(
    'changes',
    [
        dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=16),
        dict(
            type='ConvFCBBoxHead', num_cls_convs=1, num_cls_fcs=1, num_reg_convs=1, num_reg_fcs=0, conv_out_channels=16
        ),
        dict(type='ConvFCBBoxHead', num_shared_fcs=1, num_cls_fcs=1),
        dict(
            type='SABLHead',
            num_classes=3,
            cls_in_channels=16,
            reg_in_channels=16,
            cls_out_channels=32,
            reg_offset_out_channels=16,
            reg_cls_out_channels=16,
            num_cls_fcs=1,
            num_reg_fcs=0,
            _delete_=True,
        ),
    ],
)
def test_other_box_heads(changes):
    cfg = zoo.detector('Faster R-CNN')
    head_cfg = cfg.roi_head.bbox_head
    if changes.pop('_delete_', False):
        head_cfg.clear()
    head_cfg.update(changes)
    model = tiny.build(cfg)
    data = model.data_preprocessor(zoo.batch('Faster R-CNN'), True)
    head = find_head(model, 'student')
    with head.watch() as watch:
        model(**data, mode='loss')
    regions = head.regions(watch)
    assert_close(head.module.fc_cls(regions.embeddings), regions.logits)


def test_ssd_is_read_at_levels_of_one_width():
    _, head, _, regions = read(zoo.SSD300)
    assert head.levels == [0, 2] and head.width == 512
    assert len(regions.places.sizes) == 2
    _, head, _, _ = read(zoo.SSD300, levels=(3, 4, 5))
    assert head.width == 256
    with pytest.raises(ValueError, match='levels of one width'):
        read(zoo.SSD300, levels=(0, 1))


@pytest.mark.parametrize('name', zoo.READ)
def test_nothing_stays_on_the_model(name):
    model, head, _, _ = read(name)
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(
        callable(value) and not isinstance(value, torch.nn.Module)
        for key, value in vars(head.module).items()
        if key.startswith(('get_', '_get_', 'paa_', 'loss_', 'reweight_'))
    )


@pytest.mark.parametrize('name', zoo.READ)
def test_no_object_gives_no_region(name):
    model = tiny.build(zoo.detector(name))
    data = model.data_preprocessor(zoo.batch(name), True)
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    head = find_head(model, 'student')
    with head.watch() as watch:
        model(**data, mode='loss')
    labels = head.regions(watch).labels
    assert not bool((labels < zoo.CLASSES).any())
    assert len(labels) > 0 or not head.background
