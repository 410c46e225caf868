"""Teachers of other families and class lists, from one command each."""

import json

import pytest
import torch
from mmengine.config import Config

from tests.helpers import detector_zoo as zoo
from tests.helpers import short_trainings as training
from tests.helpers.backbone_detectors import BACKBONES
from tests.helpers.tiny_detectors import build

# the ready RCKA entry rises in its first step from random weights, and takes 20 more to fall below that
EPOCHS = 14
STUDENT = ('disk', 'square', 'triangle')  # of the six that are drawn
OTHERS = ('ring', 'triangle', 'disk', 'cross', 'star')


def on_swin(name):
    cfg = Config(dict(model=zoo.detector(name))).model
    cfg.backbone = BACKBONES['Swin']
    cfg.neck.in_channels = [8, 16, 32, 64]
    return cfg


def whole(shapes, folder, model, classes):
    """A config file for a detector of these classes on the shapes."""
    cfg = training.config(shapes, folder, None, epochs=EPOCHS)
    cfg.model = model
    cfg.merge_from_dict(
        {'model.bbox_head.num_classes': len(classes)}
        if 'bbox_head' in model
        else {'model.roi_head.bbox_head.num_classes': len(classes)}
        if isinstance(model['roi_head']['bbox_head'], dict)
        else {}
    )
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].dataset.metainfo = dict(classes=classes)
        for step in cfg[f'{part}_dataloader'].dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (96, 96)
    cfg.default_hooks.logger.interval = 1
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=2e-3, weight_decay=0.05)
    cfg.optim_wrapper.clip_grad = dict(max_norm=10.0)
    # RTMDet's head holds the same convolutions under several names
    cfg.optim_wrapper.paramwise_cfg = dict(bypass_duplicate=True)
    cfg.param_scheduler = []
    cfg.train_cfg.val_interval = EPOCHS
    cfg.log_level = 'INFO'
    cfg.pop('work_dir')
    folder.mkdir()
    cfg.dump(folder / f'{folder.name}.py')
    return folder / f'{folder.name}.py'


@pytest.mark.slow
@pytest.mark.parametrize(
    'student,teacher,methods,matched',
    [
        ('Faster R-CNN', 'Cascade R-CNN', ['rcka', 'nd', 'kd', 'lipschitz'], ['RoI regions']),
        ('RetinaNet', 'Mask R-CNN', ['rcka', 'nd:0.5', 'lipschitz'], ["2 of the student's 3", 'not square']),
        ('RTMDet', 'DINO', ['rcka:0.5', 'nckd'], ['query']),
    ],
)
def test_pair(student, teacher, methods, matched, shapes, tmp_path):
    swin = teacher == 'Mask R-CNN'
    classes = OTHERS if swin else STUDENT
    model = on_swin(teacher) if swin else zoo.detector(teacher, 8)
    config = whole(shapes, tmp_path / 'teacher', model, classes)
    weights = tmp_path / 'teacher.pth'
    torch.save(
        dict(
            state_dict=build(Config.fromfile(config).model).state_dict(), meta=dict(dataset_meta=dict(classes=classes))
        ),
        weights,
    )
    own = whole(shapes, tmp_path / 'student', zoo.detector(student), STUDENT)
    done = training.command(
        'tools/train.py',
        own,
        '--teacher',
        config,
        '--teacher-ckpt',
        weights,
        '--distill',
        *methods,
        '--skip-check',
        '--work-dir',
        tmp_path / 'run',
    )
    assert done.returncode == 0, done.stdout[-3000:]
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    for part in [*matched, 'matches', 'neck']:
        assert part in log, part
    scalars = [
        json.loads(line) for line in next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    ]
    steps = [one for one in scalars if 'loss' in one]
    terms = {key for key in steps[0] if key.startswith('distill.loss_')}
    assert len(terms) >= len(methods) - ('lipschitz' in methods)
    assert steps[-1]['distill.loss_rcka'] < steps[0]['distill.loss_rcka']
    assert any('bbox_mAP' in key for one in scalars for key in one)
    plain = build(Config.fromfile(own).model)
    plain.load_state_dict(torch.load(tmp_path / 'run' / f'epoch_{EPOCHS}.pth', weights_only=False)['state_dict'])
