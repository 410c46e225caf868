"""Class means, heads and places: what is built, and what is refused."""

import json

import pytest
import torch
from torch.testing import assert_close

from kd_ext.class_means.running import OnlineClassMeans
from kd_ext.class_means.stored import ClassMeans, load_class_means, save_class_means
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny

ND = dict(type='kd_ext.NDLoss', at='embedding')
NCKD = dict(type='kd_ext.NCKDLoss', at='embedding')
KL = dict(type='kd_ext.LogitKLLoss', at='logits')
CLASSES = ['a', 'b', 'c']


def file(folder, rows=4, width=24, classes=CLASSES, name='means.pth'):
    """A class-means file for a teacher ``width`` wide: its path."""
    path = folder / name
    save_class_means(path, ClassMeans(torch.rand(rows, width), torch.arange(rows), classes, dict(teacher='t.py')))
    return str(path)


def test_file_round_trip(tmp_path):
    path = file(tmp_path)
    found = load_class_means(path)
    assert found.classes == CLASSES and found.info == dict(teacher='t.py')
    assert found.means.shape == (4, 24) and found.counts.tolist() == [0, 1, 2, 3]
    assert torch.load(path, weights_only=True)['format']  # runs no code


def test_authors_json(tmp_path):
    path = tmp_path / 'means.json'
    path.write_text(json.dumps({'1': [3.0, 4.0], '0': [1.0, 2.0]}))
    assert load_class_means(path).means.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize('content', [b'', b'text', b'{"0": 1}'])
@pytest.mark.parametrize('name', ['means.pth', 'means.json'])
def test_unreadable_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match='class_means to be a file of tools'):
        load_class_means(path)


def test_a_checkpoint_is_no_class_means(tmp_path):
    path = tmp_path / 'epoch_12.pth'
    torch.save(dict(state_dict={}, meta={}), path)
    with pytest.raises(ValueError, match='it holds'):
        load_class_means(path)


def test_missing_file_lists_near_names(tmp_path):
    file(tmp_path)
    with pytest.raises(FileNotFoundError, match='Did you mean: means.pth'):
        load_class_means(tmp_path / 'mean.pth')


@pytest.mark.parametrize('rows', [3, 4])
def test_file_in_use(tmp_path, rows):
    path = file(tmp_path, rows)
    model = tiny.distill(
        teacher=tiny.fcos(8, width=24), nd=dict(ND, class_means=path), nckd=dict(NCKD, class_means=path)
    )
    assert list(model.distiller.class_means) == ['file0']
    losses = tiny.losses(model)
    assert float(losses['distill.loss_nd']) > 0


def test_nckd_with_a_file_never_runs_the_teacher(tmp_path):
    model = tiny.distill(teacher=tiny.fcos(8, width=24), nckd=dict(NCKD, class_means=file(tmp_path)))
    assert not model.distiller.teacher_passes()
    model.teacher.forward = None  # a call would fail
    assert float(tiny.losses(model)['distill.loss_nckd_nc1']) > 0


@pytest.mark.parametrize(
    'rows,width,classes,match',
    [
        (6, 24, list('abcde'), "those of the student's 3 classes, but got 5"),
        (2, 24, None, "student's 3 classes, but got 2"),
        (4, 32, CLASSES, 'of width 24, as the teacher'),
    ],
)
def test_means_that_do_not_fit(tmp_path, rows, width, classes, match):
    path = file(tmp_path, rows, width, classes)
    with pytest.raises(ValueError, match=match):
        tiny.distill(teacher=tiny.fcos(8, width=24), nd=dict(ND, class_means=path))


@pytest.mark.parametrize(
    'entry,match',
    [
        (dict(KL, class_means='online'), 'without class_means, which kd_ext.Log'),
        (dict(ND, at='logits'), "at to be 'embedding', which class means"),
        (dict(ND, at='neck'), "at to be 'embedding'"),
        (dict(type='kd_ext.RCKALoss', at='neck', stage=1), 'without stage'),
        (dict(type='kd_ext.RCKALoss', at='neck', class_means='online'), 'without class_means'),
    ],
)
def test_entries_that_make_no_sense(entry, match):
    with pytest.raises(ValueError, match=match):
        tiny.distill(term=entry)


def test_logits_of_other_classes():
    with pytest.raises(ValueError, match='5 in the teacher. Give the model'):
        tiny.distill(teacher=tiny.fcos(8, num_classes=5), kl=KL)


def test_regions_that_the_teacher_cannot_read():
    with pytest.raises(ValueError, match='RoI regions of Shared2FCBBoxHead'):
        tiny.distill(zoo.detector('FCOS'), zoo.detector('Faster R-CNN'), kl=KL)


@pytest.mark.parametrize(
    'student,teacher',
    [
        ('FCOS', 'Faster R-CNN'),
        ('Faster R-CNN', 'FCOS'),
        ('RTMDet', 'DINO'),
        ('FCOS', 'SSD'),
        ('RetinaNet', 'Mask R-CNN'),
    ],
)
def test_other_families_teach_by_class_means(student, teacher):
    # the teacher reads regions of its own; the student's come with labels
    data = zoo.batch(student)  # without masks
    model = tiny.distill(zoo.detector(student), zoo.detector(teacher, 8), nd=ND, nckd=NCKD).train()
    losses = tiny.losses(model, data)
    terms = losses['distill.loss_nd'] + losses['distill.loss_nckd_nc1']
    terms.backward()
    means = next(iter(model.distiller.class_means.values())).means
    assert (means[: zoo.CLASSES].abs().sum(1) > 0).any()
    assert teacher != 'Mask R-CNN' or model.teacher.with_mask
    assert any(p.grad is not None and p.grad.any() for p in model.student.parameters())


def test_dense_heads_of_the_same_levels_share_places():
    model = tiny.distill(zoo.detector('FCOS'), zoo.detector('ATSS', 8), nd=ND)
    assert model.distiller.terms['nd'].needs_teacher


def test_running_means_are_the_plain_average():
    means = OnlineClassMeans(3, 4)
    embeddings, labels = torch.rand(20, 4), torch.randint(2, (20,))
    for start in range(0, 20, 5):
        means.update(embeddings[start : start + 5], labels[start : start + 5])
    for label in (0, 1):
        assert_close(means.means[label], embeddings[labels == label].mean(0))
    assert not means.means[2].any()
    assert means.counts.tolist() == [*labels.bincount().tolist(), 0]


def test_running_means_rest_in_eval_mode():
    model = tiny.distill(nd=ND).eval()
    tiny.losses(model)
    assert not model.distiller.class_means['regions'].counts.any()


def test_review_gets_its_widths_from_the_detectors():
    model = tiny.distill(
        teacher=tiny.fcos(8, width=24), review=dict(type='kd_ext.ReviewKDLoss', at='neck', mid_channels=8)
    )
    term = model.distiller.terms['review']
    assert term.loss.widths == ((16,) * 3, (24,) * 3)
    assert not list(term.connectors)
    assert float(tiny.losses(model)['distill.loss_review']) > 0


def test_sigmoid_and_softmax_are_found_out():
    model = tiny.distill(kl=KL)
    assert model.distiller.terms['kl'].loss.use_sigmoid is True
    model = tiny.distill(tiny.faster_rcnn(), tiny.faster_rcnn(8), kl=KL)
    assert model.distiller.terms['kl'].loss.use_sigmoid is False


def test_hooks_find_the_parts_of_the_student():
    model = tiny.distill()
    assert model.bbox_head is model.student.bbox_head
    assert model.with_neck is True
    with pytest.raises(AttributeError):
        model.no_such_thing  # noqa: B018


def test_checkpoint_of_a_detector_that_renames_keys(tmp_path):
    path = tmp_path / 'two_stage.pth'
    model = tiny.build(tiny.faster_rcnn())
    torch.save(dict(state_dict=model.state_dict()), path)
    with pytest.raises(ValueError, match='teacher_ckpt to be a checkpoint of'):
        tiny.distill(teacher=tiny.fcos(8), teacher_ckpt=str(path))


@pytest.mark.parametrize(
    'student, teacher, match',
    [
        ('FCOS', 'RetinaNet', '1 of FCOSHead and 9 of RetinaHead at each location'),
        ('RetinaNet', 'FCOS', '9 of RetinaHead and 1 of FCOSHead at each location'),
        ('RetinaNet', 'resized', '9 of other sizes at each location of RetinaHead and RetinaHead'),
    ],
)
def test_logits_of_other_anchors_are_refused_and_embeddings_are_not(student, teacher, match):
    models = {name: zoo.detector(name, base) for name, base in (('FCOS', 4), ('RetinaNet', 4))}
    models['resized'] = zoo.detector('RetinaNet', 8)
    models['resized'].bbox_head.anchor_generator.ratios = [0.25, 1.0, 4.0]
    # the same pyramid, so that the heads have their locations in common
    models['FCOS'].neck = models['RetinaNet'].neck
    models['FCOS'].bbox_head.strides = models['RetinaNet'].bbox_head.anchor_generator.strides
    with pytest.raises(ValueError, match=rf"distill\.kl .*same anchors .*{match}.*at='embedding'"):
        tiny.distill(models[student], models[teacher], kl=KL)
    model = tiny.distill(models[student], models[teacher], nd=ND).train()
    assert model.distiller.terms['nd'].needs_teacher
    values = tiny.losses(model, zoo.batch('RetinaNet'))
    assert float(values['distill.loss_nd']) > 0


def test_logits_of_points_and_of_single_anchors_are_compared():
    model = tiny.distill(zoo.detector('FCOS'), zoo.detector('ATSS', 8), kl=KL).train()
    assert float(tiny.losses(model, zoo.batch('FCOS'))['distill.loss_kl']) > 0


@pytest.mark.parametrize(
    'student, teacher, setting, match',
    [
        (
            'Faster R-CNN',
            'Faster R-CNN',
            dict(stage=0),
            'stage to be left out .* cascade .*0 for Shared2FCBBoxHead and',
        ),
        ('FCOS', 'FCOS', dict(stage=1), 'stage to be left out'),
        ('DETR', 'DETR', dict(stage=1), 'stage to be left out'),
        ('Faster R-CNN', 'Cascade R-CNN', dict(levels=(0,)), 'levels to be left out'),
        ('DETR', 'DETR', dict(levels=1), r'levels to be left out .*\(1,\) for DETRHead'),
        ('Sparse R-CNN', 'Sparse R-CNN', dict(levels=1), 'levels to be left out'),
        ('Sparse R-CNN', 'Sparse R-CNN', dict(stage=9), r'stage to be in 0\.\.5'),
        ('FCOS', 'FCOS', dict(levels=(0, 0)), 'levels to be different whole numbers'),
        ('FCOS', 'FCOS', dict(levels=(9,)), r'levels to be within 0\.\.4'),
        ('FCOS', 'Faster R-CNN', dict(levels=(9,)), r'levels to be within 0\.\.4'),
    ],
)
def test_stage_and_levels_that_mean_nothing(student, teacher, setting, match):
    with pytest.raises(ValueError, match=match):
        tiny.distill(zoo.detector(student), zoo.detector(teacher, 8), nd=dict(ND, **setting))


def test_stage_of_a_cascade_above_a_plain_student():
    model = tiny.distill(zoo.detector('Faster R-CNN'), zoo.detector('Cascade R-CNN', 8), nd=dict(ND, stage=2))
    assert float(tiny.losses(model, zoo.batch('Faster R-CNN'))['distill.loss_nd']) > 0


def one_class(**changes):
    return tiny.fcos(num_classes=1, **changes), tiny.fcos(8, num_classes=1, width=24)


def test_one_class_is_too_few_for_losses_that_compare_classes():
    with pytest.raises(ValueError, match=r'distill\.nckd .* 2 or more classes .* got 1\. kd_ext\.NDLoss works'):
        tiny.distill(*one_class(), nckd=NCKD)
    with pytest.raises(ValueError, match='2 or more classes'):  # points are never background
        tiny.distill(*one_class(), nckd=dict(NCKD, include_background=True))
    model = tiny.distill(*one_class(), nd=ND).train()
    assert float(tiny.losses(model, tiny.batch(num_classes=1))['distill.loss_nd']) > 0


def test_one_class_and_the_background_are_two():
    pair = tiny.faster_rcnn(num_classes=1), tiny.faster_rcnn(8, num_classes=1)
    with pytest.raises(ValueError, match='2 or more classes'):
        tiny.distill(*pair, nckd=NCKD)
    model = tiny.distill(*pair, nckd=dict(NCKD, include_background=True)).train()
    values = tiny.losses(model, tiny.batch(num_classes=1))
    assert float(values['distill.loss_nckd_nc1']) > 0


def test_class_means_of_too_few_classes(tmp_path):
    path = tmp_path / 'means.pth'
    means = torch.zeros(4, 24)
    means[1] = 1
    save_class_means(path, ClassMeans(means, None, CLASSES, dict(teacher='t.py')))
    with pytest.raises(ValueError, match=r'distill\.x .* 2 or more classes .* got 1'):
        tiny.distill(teacher=tiny.fcos(8, width=24), x=dict(NCKD, class_means=str(path)))
