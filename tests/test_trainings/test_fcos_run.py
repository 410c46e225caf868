"""The published FCOS recipe on real images, from the command line.

At toy image sizes and for a few iterations: what is shown is that it trains,
validates, saves, is interrupted and goes home to plain mmdet, not how well it
learns.
"""

import os
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from tests.helpers.data_sets import COCO128, ROOT
from tests.helpers.short_trainings import command
from tests.helpers.tiny_detectors import batch

DATA = COCO128
PLAIN = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py'
TEACHER = 'mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not DATA.exists(), reason='KD_EXT_TEST_DATA names no folder with coco128'),
]


def options(**changes):
    annotations = 'annotations/detection_{}2017.json'
    return [
        f'{key}={value}'
        for key, value in {
            'train_dataloader.dataset.data_root': f'{DATA}/',
            'train_dataloader.dataset.ann_file': annotations.format('train'),
            'train_dataloader.dataset.indices': 6,
            'train_dataloader.dataset.pipeline.2.scales': '[(160,160)]',
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader.dataset.data_root': f'{DATA}/',
            'val_dataloader.dataset.ann_file': annotations.format('val'),
            'val_dataloader.dataset.indices': 3,
            'val_dataloader.dataset.pipeline.1.scale': '(160,160)',
            'val_dataloader.num_workers': 0,
            'val_dataloader.persistent_workers': False,
            'val_evaluator.ann_file': f'{DATA}/{annotations.format("val")}',
            'default_hooks.logger.interval': 1,
            'optim_wrapper.optimizer.lr': 1e-4,
            'train_cfg.max_epochs': 1,
            **changes,
        }.items()
    ]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Work dir of a distilled training that was interrupted."""
    work = tmp_path_factory.mktemp('coco128')
    teacher = command(
        'tools/train.py',
        TEACHER,
        '--work-dir',
        work / 'teacher',
        '--cfg-options',
        *options(**{'model.backbone.init_cfg': None}),
        timeout=900,
    )
    assert teacher.returncode == 0, teacher.stdout[-3000:]
    process = subprocess.Popen(
        [
            sys.executable,
            'tools/train.py',
            'configs/rcka_fcos_r101_r50_coco.py',
            '--work-dir',
            work / 'student',
            '--cfg-options',
            *options(
                **{
                    'model.teacher_ckpt': work / 'teacher/epoch_1.pth',
                    'model.student.backbone.init_cfg': None,
                    'model.student.test_cfg.score_thr': 0.0,
                    'default_hooks.checkpoint.save_best': 'coco/bbox_mAP',
                    'train_cfg.max_epochs': 50,
                }
            ),
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'COLUMNS': '200'},
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if 'Epoch(train)' in line and '[2]' in line:
            process.send_signal(signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=600)
    return work, process.returncode, ''.join(lines) + rest


def test_trains_validates_and_stops_on_request(trained):
    work, status, log = trained
    assert status == 130, log[-3000:]
    assert 'keys matched, 0 missing, 0 unexpected, 0 reshaped' in log
    assert 'distill.loss_rcka' in log and 'coco/bbox_mAP' in log
    assert 'interrupted.pth' in log and '--resume' in log


def test_every_checkpoint_is_the_plain_student(trained):
    from mmdet.apis import init_detector

    work, _, _ = trained
    files = sorted((work / 'student').glob('*.pth'))
    names = [path.name for path in files]
    assert 'epoch_1.pth' in names and 'interrupted.pth' in names
    assert any(name.startswith('best') for name in names)
    from mmengine.hub import get_config

    cfg = get_config(PLAIN)
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg.score_thr = 0.0
    distilled = Config.fromfile(ROOT / 'configs/rcka_fcos_r101_r50_coco.py').model
    distilled.teacher_ckpt = str(work / 'teacher/epoch_1.pth')
    from mmengine.registry import MODELS

    distilled.student.test_cfg.score_thr = 0.0
    whole = MODELS.build(distilled)
    for path in files:
        plain = init_detector(cfg, device='cpu', palette='random')
        state = torch.load(path)['state_dict']
        result = plain.load_state_dict(state)
        assert not result.missing_keys and not result.unexpected_keys
        whole.load_state_dict(state)
        assert boxes(plain).numel() > 0
        assert torch.equal(boxes(plain), boxes(whole))


def boxes(model):
    model.eval()
    data = model.data_preprocessor(batch((96, 128), count=1), False)
    with torch.no_grad():
        return model(**data, mode='predict')[0].pred_instances.bboxes
