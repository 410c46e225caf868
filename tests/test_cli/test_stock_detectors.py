"""Detectors of every kind train from mmdet's own configs, through the command, preflight included.

Only data, image sizes, pretrained weights and the length of the run are changed, by ``--cfg-options``. The teacher is
the same detector, untrained. Widths and depths are mmdet's, which takes about 10 s of a core for a detector: hence
these and not all of the coverage table.
"""

import json
import signal
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub

from kd_ext.build.configs import type_name
from kd_ext.cli import train
from kd_ext.data.unwrap import unwrap
from kd_ext.engine.interruption import SIGNALS
from tests.helpers import detector_zoo as zoo

NAMES = ('person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus')  # of COCO, in its order
DETECTORS = ('Faster R-CNN', 'Mask R-CNN', 'YOLOX', 'RTMDet', 'SSD', 'FCOS', 'DETR', 'CornerNet')
SIDE = 160
SIDES = {'SSD': 320, 'CornerNet': 256}  # these do not take smaller ones
SIZES = ('scale', 'scales', 'crop_size', 'size', 'img_scale')
WITHOUT_NECK = ('CornerNet',)


@pytest.fixture(scope='module')
def coco(shapes, tmp_path_factory):
    """The shapes under names of COCO's classes."""
    folder = tmp_path_factory.mktemp('coco')
    for split in ('train', 'val'):
        content = json.loads((shapes / f'annotations/instances_{split}.json').read_text())
        for category, name in zip(content['categories'], NAMES):
            category['name'] = name
        (folder / f'{split}.json').write_text(json.dumps(content))
    return folder


@pytest.fixture(autouse=True)
def left_as_it_was():
    handlers = {one: signal.getsignal(one) for one in (*SIGNALS, signal.SIGCHLD)}
    MessageHub.get_current_instance().runtime_info.clear()
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def sizes(steps, place, side):
    """Options that make every image of a pipeline small."""
    for index, step in enumerate(steps or ()):
        if not isinstance(step, dict):
            yield from sizes(step, f'{place}.{index}', side)
            continue
        kind = type_name(step)
        for key in SIZES:
            if isinstance(step.get(key), (list, tuple)) and kind != 'Normalize':
                value = f'[({side},{side})]' if key == 'scales' else f'({side},{side})'
                yield f'{place}.{index}.{key}={value}'
        if kind == 'RandomAffine' and 'border' in step:
            yield f'{place}.{index}.border=({-side // 2},{-side // 2})'
        yield from sizes(step.get('transforms'), f'{place}.{index}.transforms', side)


def options(cfg, shapes, coco, side):
    """``--cfg-options`` for a run of one iteration on two small images."""
    for split in ('train', 'val'):
        loader = f'{split}_dataloader'
        yield from (f'{loader}.num_workers=0', f'{loader}.persistent_workers=False')
        outer, place = cfg[loader].dataset, f'{loader}.dataset'
        while isinstance(outer.get('dataset'), dict):
            yield from sizes(outer.get('pipeline'), f'{place}.pipeline', side)
            outer, place = outer.dataset, f'{place}.dataset'
        for part in unwrap(cfg[loader].dataset, f'{loader}.dataset'):
            yield f'{part.key}.data_root={shapes}'
            yield f'{part.key}.ann_file={coco}/{split}.json'
            yield f'{part.key}.data_prefix.img=VOC2007/JPEGImages'
            yield f'{part.key}.indices=2'
            yield from sizes(part.config.get('pipeline'), f'{part.key}.pipeline', side)
    yield 'train_dataloader.batch_size=2'
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    for index in range(len(evaluators)):
        place = f'val_evaluator.{index}' if isinstance(cfg.val_evaluator, list) else 'val_evaluator'
        yield f'{place}.ann_file={coco}/val.json'
    yield 'train_cfg.max_iters=1' if 'max_iters' in cfg.train_cfg else 'train_cfg.max_epochs=1'
    yield 'train_cfg.val_begin=100'
    yield 'default_hooks.checkpoint.interval=100'
    yield 'default_hooks.checkpoint.save_last=False'
    yield 'default_hooks.logger.interval=1'
    yield 'log_level=WARNING'
    if cfg.model.backbone.get('init_cfg'):
        yield 'model.backbone.init_cfg=None'
        yield 'model.student.backbone.init_cfg=None'
    yield 'model.teacher_ckpt=random'


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_a_stock_config_trains_through_the_command(name, shapes, coco, tmp_path, monkeypatch):
    path = zoo.ALL[name]
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs' / path)
    weights = tmp_path / 'weights.pth'
    weights.touch()
    monkeypatch.setenv('LOCAL_RANK', '0')
    looked, runners = [], []
    monkeypatch.setattr(train, 'look', lambda runner, look=train.look: looked.append(look(runner)))
    monkeypatch.setattr(train, 'check_batches', runners.append)
    changes = list(options(cfg, shapes, coco, SIDES.get(name, SIDE)))
    if name in WITHOUT_NECK:
        changes.append('model.distill.rcka.at=backbone')
    train.main.__wrapped__(
        [f'mmdet::{path}', '--teacher', f'mmdet::{path}', '--teacher-ckpt', str(weights), '--distill', 'rcka']
        + ['--work-dir', str(tmp_path / 'work'), '--cfg-options', *changes]
    )
    assert looked == [None]
    log = runners[0].message_hub.log_scalars
    assert runners[0].iter >= 1 and log['train/distill.loss_rcka'].current() > 0 and log['train/loss'].current() > 0
