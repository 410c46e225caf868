"""Teachers of other class lists: what is compared with what."""

import pytest
import torch
from torch.testing import assert_close

from kd_ext.class_means.stored import ClassMeans, save_class_means
from kd_ext.losses.kl_loss import kl_logits_loss
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny

STUDENT, TEACHER = ['a', 'b', 'c'], ['x', 'c', 'y', 'a', 'z']
KL = dict(type='kd_ext.LogitKLLoss', at='logits')
ND = dict(type='kd_ext.NDLoss', at='embedding')
OWN, OTHER = [0, 2], [3, 1]  # a and c


def distill(build, classes=True, **entries):
    names = dict(student=STUDENT, teacher=TEACHER)
    model = tiny.build(
        dict(
            type='kd_ext.DetectionDistill',
            student=build(),
            teacher=build(num_classes=5),
            teacher_ckpt='random',
            distill=entries,
            **(dict(classes=names) if classes is True else classes),
        )
    )
    return model.train()


@pytest.mark.parametrize('build,background', [(tiny.faster_rcnn, True), (tiny.fcos, False)])
def test_logits_of_the_classes_in_common(build, background):
    model = distill(build, kl=KL)
    seen = []
    model.distiller.terms['kl'].register_forward_pre_hook(lambda module, args: seen.extend(args[:2]))
    values = tiny.losses(model)
    own, other = (reading.regions('regions').logits for reading in seen)
    assert len(own) and (own.shape[1], other.shape[1]) == ((4, 6) if background else (3, 5))
    last = background * [-1]
    assert_close(
        values['distill.loss_kl'],
        kl_logits_loss(own[:, OWN + last], other[:, OTHER + last], use_sigmoid=not background),
    )
    assert any("2 of the student's 3" in line for line in model.distiller.matches)


def test_classifier_rows_of_other_classes_get_no_gradient():
    model = distill(tiny.faster_rcnn, kl=KL)
    tiny.losses(model)['distill.loss_kl'].backward()
    rows = model.student.roi_head.bbox_head.fc_cls.weight.grad.norm(dim=1)
    assert (rows > 0).tolist() == [True, False, True, True]


def test_running_means_are_of_the_students_labels():
    """Where both read the same regions the teacher's list is not asked."""
    model = distill(tiny.faster_rcnn, nd=ND, classes={})
    data = tiny.batch()
    tiny.losses(model, data)
    counts = model.distiller.class_means['regions'].counts
    labels = torch.cat([sample.gt_instances.labels for sample in data['data_samples']])
    assert len(counts) == 4
    assert ((counts[:3] > 0) == (torch.bincount(labels, minlength=3) > 0)).all()


def test_the_teachers_own_regions_have_its_labels():
    model = tiny.build(
        dict(
            type='kd_ext.DetectionDistill',
            student=zoo.detector('DETR'),
            teacher=tiny.fcos(8, num_classes=5),
            teacher_ckpt='random',
            classes=dict(student=STUDENT, teacher=TEACHER),
            distill=dict(nd=ND),
        )
    ).train()
    data = tiny.batch()
    for sample, labels in zip(data['data_samples'], ([0, 1], [2, 2])):
        sample.gt_instances.labels = torch.tensor(labels)
    seen = []
    head = model.teacher.bbox_head
    loss = head.loss
    head.loss = lambda feats, samples: seen.extend(samples) or loss(feats, samples)
    tiny.losses(model, data)
    assert [sample.gt_instances.labels.tolist() for sample in seen] == [[3], [1, 1]]  # b is not known
    counts = model.distiller.class_means['regions'].counts
    assert (counts > 0).tolist()[:3] == [True, False, True]


def test_stored_means_are_found_by_name(tmp_path):
    means = torch.rand(5, 16)
    save_class_means(tmp_path / 'means.pth', ClassMeans(means, classes=TEACHER))
    model = distill(tiny.fcos, nd=dict(ND, class_means=str(tmp_path / 'means.pth')))
    rows = model.distiller.class_means['file0'].means
    assert torch.equal(rows[OWN], means[OTHER]) and not rows[1].any()
    assert float(tiny.losses(model)['distill.loss_nd'].detach()) > 0


def test_nothing_in_common_leaves_what_does_not_go_by_class(tmp_path):
    names = dict(student=STUDENT, teacher=list('vwxyz'))
    model = distill(tiny.fcos, classes=dict(classes=names), kl=KL, nd=ND, rcka=tiny.rcka())
    assert set(model.distiller.terms) == {'nd', 'rcka'}
    assert any('kl: left out' in line and "0 of the student's 3" in line for line in model.distiller.matches)
    assert 'distill.loss_rcka' in tiny.losses(model)
    with pytest.raises(ValueError, match='no class in common.*kl'):
        distill(tiny.fcos, classes=dict(classes=names), kl=KL)


def test_errors():
    with pytest.raises(ValueError, match=r'classes=dict\(student=\[...\]'):
        distill(tiny.fcos, classes={}, kl=KL)
    with pytest.raises(ValueError, match="'students'.*Did you mean: student"):
        distill(tiny.fcos, classes=dict(classes=dict(students=[])), kl=KL)
    with pytest.raises(ValueError, match='takes logits and labels'):
        from kd_ext.registry import MODELS

        @MODELS.register_module(force=True)
        class WithLabels(torch.nn.Module):
            def forward(self, preds_S, preds_T, labels):
                return preds_S.sum()

        distill(tiny.fcos, kl=dict(type='kd_ext.WithLabels', at='logits'))
