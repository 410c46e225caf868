"""The look at a teacher takes detectors whose loss is unlike that of a dense box head."""

import pytest

from kd_ext.preflight.teacher_score import TeacherScore
from kd_ext.teachers.build import ONE
from kd_ext.teachers.class_map import ClassMap
from tests.helpers import detector_zoo as zoo
from tests.helpers import tiny_detectors as tiny


def score(name, teacher=None, masks=True):
    batch = zoo.batch(name)
    if not masks:
        for sample in batch['data_samples']:
            del sample.gt_instances.masks
    lipschitz = dict(type='kd_ext.LipschitzLoss', at='backbone')
    model = tiny.distill(zoo.detector(name), teacher or zoo.detector(name), term=lipschitz)
    return TeacherScore(model, ONE, [batch], ClassMap(), thorough=False)


@pytest.mark.parametrize('name,reads_boxes', [('RTMDet-Ins', True), ('SOLO', False), ('Mask2Former', False)])
def test_masks(name, reads_boxes):
    assert float(score(name).configured) > 0
    without = score(name, masks=False)
    assert len(without.configured) == reads_boxes
    assert any('with masks' in finding.text for finding in without.findings()) != reads_boxes


def test_batch_norm_without_eps():
    teacher = zoo.detector('NAS-FCOS')
    teacher['backbone'].update(norm_cfg=dict(type='BN', eps=0), norm_eval=True)
    assert float(score('NAS-FCOS', teacher).untrained) > 0
