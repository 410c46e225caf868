"""SSD300 on data in PASCAL VOC layout: trains, is scored and exported.

At full size and for two steps. mmdet 3.3 cannot predict with its own SSD
(see ``kd_ext.patches.ssd``); what is shown is that ours do.
"""

import pytest
import torch
from mmengine.config import Config

from kd_ext.build.configs import find_config
from tests.helpers.data_sets import BCCD, ROOT
from tests.helpers.short_trainings import scored_alone, train

DATA = BCCD
CLASSES = ('RBC', 'WBC', 'Platelets')
PLAIN = 'ssd300_mobilenet-v2_voc0712.py'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason='KD_EXT_TEST_DATA names no folder with BCCD'),
]


def config(name, work_dir, **changes):
    """A published config with a few images of three classes."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    for split, part, count in (('train', 'trainval', 4), ('val', 'test', 2)):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset = dict(
            type='VOCDataset',
            data_root=f'{DATA}/',
            indices=count,
            ann_file=f'VOC2007/ImageSets/Main/{part}.txt',
            data_prefix=dict(sub_data_root='VOC2007/'),
            metainfo=dict(classes=CLASSES),
            pipeline=cfg.train_pipeline if split == 'train' else cfg.test_pipeline,
            test_mode=split == 'val',
        )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': 1,
            'work_dir': str(work_dir),
            'log_level': 'ERROR',
            'randomness': dict(seed=0),
            **changes,
        }
    )
    cfg.experiment_name = work_dir.name
    return cfg


def small(model):
    """Three classes, and no weights to fetch."""
    model.bbox_head.num_classes = len(CLASSES)
    model.backbone.init_cfg = None
    return model


def test_trains_scores_and_exports(tmp_path):
    cfg = config(f'lipschitz_{PLAIN}'.replace('ssd300_', 'ssd300_vgg16_'), tmp_path / 'ssd')
    small(cfg.model.student)
    cfg.model.teacher = small(Config.fromfile(find_config(cfg.model.teacher)).model)
    cfg.model.teacher_ckpt = 'random'
    runner = train(cfg)
    scalars = runner.message_hub.log_scalars
    assert runner.iter == 2
    assert scalars['train/distill.loss_lipschitz'].current() > 0
    assert 0 <= scalars['val/pascal_voc/mAP'].current() <= 1

    plain = config(PLAIN, tmp_path / 'plain')
    small(plain.model)
    metrics, boxes = scored_alone(plain, tmp_path / 'ssd/epoch_1.pth')
    assert metrics['pascal_voc/mAP'] == scalars['val/pascal_voc/mAP'].current()
    assert len(boxes) == 2 and all(len(one.scores) > 0 for one in boxes)
    assert all(bool(torch.isfinite(one.bboxes).all()) for one in boxes)
