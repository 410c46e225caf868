"""The look at a teacher takes detectors whose loss is unlike that of a dense box head."""

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub

from kd_ext.preflight import Preflight
from kd_ext.preflight.teacher_score import TeacherScore
from kd_ext.teachers.build import ONE
from kd_ext.teachers.class_map import ClassMap
from tests.helpers import detector_zoo as zoo
from tests.helpers import short_trainings as training
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


def test_a_head_that_asks_for_the_epoch():
    MessageHub.get_current_instance().runtime_info.pop('epoch', None)
    assert float(score('TOOD').configured) > 0


def test_a_detector_that_takes_no_small_images(shapes, tmp_path):
    """At 256 pixels the last level of DDOD is smaller than its kernel."""
    cfg = training.config(shapes, tmp_path, 'random')
    cfg.val_dataloader.dataset.pipeline[1].scale = (384, 384)
    ddod = zoo.detector('DDOD')
    ddod['bbox_head']['num_classes'] = training.CLASSES
    parts = dict(student=ddod, teacher=ddod, teacher_ckpt='random', distill=dict(rcka=tiny.rcka()))
    cfg.model = Config(dict(model=dict(type='kd_ext.DetectionDistill', **parts))).model
    flight = Preflight(cfg, tiny.build(cfg.model), images=2, size=256)
    assert float(flight.teachers(thorough=False)[ONE].configured.mean()) > 0
    assert flight.batches[0]['inputs'][0].shape[1:] == (384, 384)
