"""Mask R-CNN under three methods at once on COCO images, box and mask AP."""

import pytest
import torch
from mmengine.config import Config

from tests.helpers import detector_zoo as zoo
from tests.helpers.data_sets import COCO128
from tests.helpers.short_trainings import scored_alone, train

DATA = COCO128
CLASSES = ('person', 'chair', 'car')
PLAIN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
AP = [f'coco/{kind}_mAP' for kind in ('bbox', 'segm')]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason='KD_EXT_TEST_DATA names no folder with coco128'),
]


def detector(depth, base):
    """mmdet's Mask R-CNN, narrow; every box counts, however bad."""
    model = zoo.detector('Mask R-CNN', base)
    model.backbone.depth = depth
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    return model


def config(work_dir, **changes):
    """mmdet's own config with a few small images of three classes."""
    cfg = Config.fromstring(f'_base_ = {PLAIN!r}', '.py')
    for split, count in (('train', 6), ('val', 3)):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        annotations = f'annotations/instances_{split}2017.json'
        loader.dataset.update(
            data_root=f'{DATA}/', ann_file=annotations, indices=count, metainfo=dict(classes=CLASSES)
        )
        for transform in loader.dataset.pipeline:
            if 'scale' in transform:
                transform.scale = (192, 144)
    cfg.val_evaluator.ann_file = f'{DATA}/{annotations}'
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = cfg.val_evaluator
    cfg.model = detector(18, 8)
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': 1,
            'default_hooks.logger.interval': 1,
            'work_dir': str(work_dir),
            'log_level': 'ERROR',
            'randomness': dict(seed=0),
            **changes,
        }
    )
    cfg.experiment_name = work_dir.name
    return cfg


def test_trains_scores_and_exports(tmp_path):
    cfg = config(tmp_path / 'mask')
    cfg.model = dict(
        type='kd_ext.DetectionDistill',
        student=cfg.model,
        teacher=detector(34, 16),
        teacher_ckpt='random',
        distill=dict(
            rcka=dict(type='kd_ext.RCKALoss', at='neck', patch_size=4, levels=(0, 1, 2, 3)),
            lipschitz=dict(type='kd_ext.LipschitzLoss', at='backbone', relative=True, loss_weight=0.1),
            nd=dict(type='kd_ext.NDLoss', at='embedding', class_means='online'),
        ),
    )
    runner = train(cfg)
    scalars = runner.message_hub.log_scalars
    assert runner.iter == 3
    for name in ('loss_rcka', 'loss_lipschitz', 'loss_nd'):
        values = scalars[f'train/distill.{name}'].data[0]
        assert len(values) == 3 and 0 < values.max() < float('inf'), name
    assert scalars['train/student.loss_mask'].current() > 0
    for name, parameter in runner.model.named_parameters():
        assert bool(torch.isfinite(parameter).all()), name

    metrics, found = scored_alone(config(tmp_path / 'plain'), tmp_path / 'mask/epoch_1.pth')
    for name in AP:
        assert 0 <= metrics[name] <= 1
        assert metrics[name] == scalars[f'val/{name}'].current()
    seen = predictions(runner)
    for one, other in zip(found, seen, strict=True):
        assert len(one.bboxes) > 0 and one.masks.any()
        assert torch.equal(one.bboxes, other.bboxes)
        assert torch.equal(one.masks, other.masks)


def predictions(runner):
    """Of the distilled model itself, on the validation's images."""
    with torch.no_grad():
        return [sample.pred_instances for batch in runner.val_dataloader for sample in runner.model.val_step(batch)]
