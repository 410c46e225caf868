"""Tiny segmentors and batches: the real classes at toy widths."""

import copy

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.helpers.data_sets import ROOT

CLASSES = 5


def config(name):
    """A config of this repository, or of ``mmseg::``."""
    if '::' in name:
        return Config.fromstring(f'_base_ = {name!r}', '.py')
    return Config.fromfile(ROOT / 'configs' / name)


def segmentor(name, base=4, **changes):
    """The segmentor that a config describes, tiny: its model config."""
    return shrink(config(name).model, base, **changes)


def shrink(cfg, base=4, channels=8, num_classes=CLASSES):
    """The same segmentor with a narrow backbone and narrow heads."""
    cfg = copy.deepcopy(cfg)
    cfg.pretrained = None
    cfg.data_preprocessor.update(size=None, size_divisor=8)
    if cfg.backbone.type == 'MobileNetV2':
        cfg.backbone.widen_factor = base / 64
    else:
        cfg.backbone.update(base_channels=base, stem_channels=base)
    stages = build(cfg.backbone)(torch.zeros(2, 3, 64, 64))
    for head in (cfg.decode_head, cfg.auxiliary_head):
        head.update(in_channels=stages[head.in_index].shape[1], channels=channels, num_classes=num_classes)
    if 'c1_in_channels' in cfg.decode_head:
        cfg.decode_head.update(c1_in_channels=stages[0].shape[1], c1_channels=4)
    return cfg


def build(cfg, seed=0):
    """A model with its weights initialised from a seed."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def distill(student, teacher, **entries):
    """A DetectionDistill of tiny segmentors under an untrained teacher."""
    return build(
        dict(type='kd_ext.DetectionDistill', student=student, teacher=teacher, teacher_ckpt='random', distill=entries)
    )


def batch(size=(64, 96), count=2, seed=0):
    """A batch as a data loader gives it, before any preprocessing."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for index in range(count):
        height, width = size[0] - 8 * index, size[1] - 16 * index
        inputs.append(torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8))
        labels = torch.randint(0, CLASSES, (1, height // 8, width // 8), generator=generator)
        labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
        samples.append(
            SegDataSample(
                metainfo=dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width)),
                gt_sem_seg=PixelData(data=labels),
            )
        )
    return dict(inputs=inputs, data_samples=samples)


def step(model, data=None):
    """Losses of one training forward, and the gradients of the total."""
    losses = model(**model.data_preprocessor(data or batch(), True), mode='loss')
    total, logged = model.parse_losses(losses)
    total.backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}
