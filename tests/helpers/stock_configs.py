"""Trains a detector from mmdet's own config, through the command, preflight included.

Only data, image sizes, pretrained weights and the length of the run are changed, by ``--cfg-options``. The method is
RCKA where docs/coverage.json says that it works, else Lipschitz, which reads the backbone. The teacher is the same
detector, untrained, except for LD, whose teacher is a GFL. Widths and depths are mmdet's.
"""

import contextlib
import json
import signal
import sys
import types
from pathlib import Path

import cv2
import mmdet
import numpy as np
from mmdet.datasets import CocoPanopticDataset
from mmdet.evaluation.metrics import coco_panoptic_metric
from mmengine.config import Config
from mmengine.logging import MessageHub
from pycocotools import mask as mask_utils

from kd_ext.build.configs import type_name
from kd_ext.cli import train
from kd_ext.data.unwrap import unwrap
from kd_ext.engine.interruption import SIGNALS
from tests.helpers import detector_zoo as zoo
from tests.helpers.coverage_table import TEACHERS
from tests.helpers.data_sets import ROOT

CONFIGS = Path(mmdet.__file__).parent / '.mim/configs'
SIDE = 160
# these do not take smaller ones
SIDES = {'SSD': 320, 'CornerNet': 256, 'DDOD': 320, 'DINO': 256}
# of these the boxes of images take long
SIDES.update({'Double-Head R-CNN': 64, 'HTC': 64, 'Cascade R-CNN': 64, 'PISA': 64, 'SABL Faster R-CNN': 64})
SIZES = ('scale', 'scales', 'crop_size', 'size', 'img_scale')
CLASSES = CocoPanopticDataset.METAINFO['classes']
THINGS = len(CocoPanopticDataset.METAINFO['thing_classes'])
GROUND = CLASSES.index('grass-merged')


def write_coco(shapes, folder):
    """The scenes of ``shapes`` under COCO's names and in its formats: polygons, and panoptic maps.

    ``{train,val}.json`` are for boxes and masks. ``panoptic_{train,val}.json`` and the folder ``panoptic`` are for
    panoptic segmentation: all that is no object is grass.
    """
    (folder / 'panoptic').mkdir()
    for split in ('train', 'val'):
        content = json.loads((shapes / f'annotations/instances_{split}.json').read_text())
        _write_panoptic(content, folder, split)
        for category, name in zip(content['categories'], CLASSES):
            category['name'] = name
        for annotation in content['annotations']:
            mask = mask_utils.decode([annotation['segmentation']])[..., 0]
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            annotation['segmentation'] = [line.ravel().tolist() for line in outlines if len(line) > 2]
        (folder / f'{split}.json').write_text(json.dumps(content))
    return folder


def _write_panoptic(content, folder, split):
    annotations = []
    for image in content['images']:
        ids, infos = np.full((image['height'], image['width']), 1), []
        for annotation in content['annotations']:
            if annotation['image_id'] == image['id']:
                mask = mask_utils.decode([annotation['segmentation']])[..., 0]
                ids[mask > 0] = number = len(infos) + 2
                infos.append(_segment(number, annotation['category_id'], annotation['bbox'], annotation['area']))
        ground = int((ids == 1).sum())
        infos.append(_segment(1, GROUND + 1, [0, 0, image['width'], image['height']], ground))
        name = image['file_name'].replace('.jpg', '.png')
        # the number of a segment is R + 256 G + 65536 B, and OpenCV writes B, G, R
        cv2.imwrite(str(folder / 'panoptic' / name), np.stack([0 * ids, 0 * ids, ids], axis=-1).astype(np.uint8))
        annotations.append(dict(image_id=image['id'], file_name=name, segments_info=infos))
    categories = [dict(id=i + 1, name=name, isthing=int(i < THINGS)) for i, name in enumerate(CLASSES)]
    (folder / f'panoptic_{split}.json').write_text(
        json.dumps(dict(images=content['images'], annotations=annotations, categories=categories))
    )


def _segment(number, category, box, area):
    return dict(id=number, category_id=category, bbox=box, area=area, iscrowd=0)


def train_stock(name, shapes, coco, folder, monkeypatch):
    """One iteration of a detector of the zoo; returns the runner, the method and what the preflight returned."""
    path, teacher = zoo.ALL[name], zoo.ALL[TEACHERS.get(name, name)]
    coverage = json.loads((ROOT / 'docs/coverage.json').read_text())[name]
    method = 'rcka' if coverage['rcka'].startswith('yes') else 'lipschitz'
    weights = folder / 'weights.pth'
    weights.touch()
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(CONFIGS.parent)  # LD's config names that of its teacher from here
    _lend_panopticapi(monkeypatch)
    # the layout of dumped configs takes a tenth of the time or more
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **style: (text, True))
    looked, runners = [], []
    monkeypatch.setattr(train, 'look', lambda runner, look=train.look: looked.append(look(runner)))
    monkeypatch.setattr(train, 'check_batches', runners.append)
    with _signals_and_messages():
        train.main.__wrapped__(
            [f'mmdet::{path}', '--teacher', f'mmdet::{teacher}', '--teacher-ckpt', str(weights)]
            + ['--distill', method, '--work-dir', str(folder / 'work')]
            + ['--cfg-options', *options(Config.fromfile(CONFIGS / path), shapes, coco, SIDES.get(name, SIDE))]
            + ['model.teacher_ckpt=random']
        )
    return runners[0], method, looked


@contextlib.contextmanager
def _signals_and_messages():
    handlers = {one: signal.getsignal(one) for one in (*SIGNALS, signal.SIGCHLD)}
    MessageHub.get_current_instance().runtime_info.clear()
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _lend_panopticapi(monkeypatch):
    """A stand-in for COCO's panopticapi, which pip finds on GitHub alone: mmdet reads panoptic maps with it.

    It has the code of the maps' colours. Its measure is left out, as these trainings end before a validation.
    """
    if coco_panoptic_metric.panopticapi is None:
        utils = types.SimpleNamespace(rgb2id=lambda color: color.astype(np.int32) @ (1, 256, 65536))
        monkeypatch.setitem(sys.modules, 'panopticapi', types.SimpleNamespace(utils=utils))
        monkeypatch.setattr(coco_panoptic_metric, 'panopticapi', utils)


def options(cfg, shapes, coco, side):
    """``--cfg-options`` for a run of one iteration on two small images."""
    for split in ('train', 'val'):
        loader = f'{split}_dataloader'
        yield from (f'{loader}.num_workers=0', f'{loader}.persistent_workers=False')
        outer, place = cfg[loader].dataset, f'{loader}.dataset'
        while isinstance(outer.get('dataset'), dict):
            yield from _sizes(outer.get('pipeline'), f'{place}.pipeline', side)
            outer, place = outer.dataset, f'{place}.dataset'
        for part in unwrap(cfg[loader].dataset, f'{loader}.dataset'):
            yield f'{part.key}.data_root={shapes}'
            yield f'{part.key}.ann_file={_annotations(part.config, coco, split)}'
            yield f'{part.key}.data_prefix.img=VOC2007/JPEGImages'
            if 'seg' in part.config.data_prefix:
                yield f'{part.key}.data_prefix.seg={coco}/panoptic'
            yield f'{part.key}.indices=2'
            yield from _sizes(part.config.get('pipeline'), f'{part.key}.pipeline', side)
    yield 'train_dataloader.batch_size=2'
    several = isinstance(cfg.val_evaluator, list)
    for index, evaluator in enumerate(cfg.val_evaluator if several else [cfg.val_evaluator]):
        place = f'val_evaluator.{index}' if several else 'val_evaluator'
        yield f'{place}.ann_file={_annotations(evaluator, coco, "val")}'
        if 'seg_prefix' in evaluator:
            yield f'{place}.seg_prefix={coco}/panoptic'
    yield 'train_cfg.max_iters=1' if 'max_iters' in cfg.train_cfg else 'train_cfg.max_epochs=1'
    yield 'train_cfg.val_begin=100'
    yield 'default_hooks.checkpoint.interval=100'
    yield 'default_hooks.checkpoint.save_last=False'
    yield 'default_hooks.logger.interval=1'
    yield 'log_level=WARNING'
    if cfg.model.backbone.get('init_cfg'):
        yield 'model.backbone.init_cfg=None'
        yield 'model.student.backbone.init_cfg=None'
    if cfg.model.get('teacher_ckpt'):
        yield 'model.student.teacher_ckpt=None'
    for index, step in enumerate(cfg.model.get('data_preprocessor', {}).get('batch_augments') or ()):
        if 'size' in step:
            yield f'model.data_preprocessor.batch_augments.{index}.size=({side},{side})'


def _annotations(config, coco, split):
    return coco / (f'panoptic_{split}.json' if 'Panoptic' in config.type else f'{split}.json')


def _sizes(steps, place, side):
    """Options that make every image of a pipeline small."""
    for index, step in enumerate(steps or ()):
        if not isinstance(step, dict):
            yield from _sizes(step, f'{place}.{index}', side)
            continue
        kind = type_name(step)
        for key in SIZES:
            if isinstance(step.get(key), (list, tuple)) and kind != 'Normalize':
                value = f'[({side},{side})]' if key == 'scales' else f'({side},{side})'
                yield f'{place}.{index}.{key}={value}'
        if kind == 'RandomAffine' and 'border' in step:
            yield f'{place}.{index}.border=({-side // 2},{-side // 2})'
        yield from _sizes(step.get('transforms'), f'{place}.{index}.transforms', side)
