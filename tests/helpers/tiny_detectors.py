"""Tiny detectors and batches: the real classes at toy widths."""

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.helpers.data_sets import ROOT


def fcos(base=4, width=16, num_classes=3, **changes):
    """Model config of a tiny FCOS."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/fcos_small.py').model
    cfg.backbone.base_channels = base
    cfg.neck.update(in_channels=[2 * base, 4 * base, 8 * base], out_channels=width)
    cfg.bbox_head.update(
        num_classes=num_classes, in_channels=width, feat_channels=width, stacked_convs=1, norm_cfg=dict(type='BN')
    )
    whole = Config(dict(model=cfg))
    whole.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
    return whole.model


def faster_rcnn(base=4, width=16, num_classes=3):
    """Model config of a tiny Faster R-CNN."""
    cfg = Config.fromfile(_mmdet('_base_/models/faster-rcnn_r50_fpn.py')).model
    cfg.backbone.update(depth=18, base_channels=base, init_cfg=None, frozen_stages=-1)
    cfg.neck.update(in_channels=[base, 2 * base, 4 * base, 8 * base], out_channels=width)
    cfg.rpn_head.update(in_channels=width, feat_channels=width)
    cfg.roi_head.bbox_roi_extractor.out_channels = width
    cfg.roi_head.bbox_head.update(in_channels=width, fc_out_channels=32, num_classes=num_classes)
    cfg.train_cfg.rcnn.sampler.num = 32
    return cfg


def _mmdet(name):
    import mmdet

    return str(Path(mmdet.__file__).parent / '.mim' / 'configs' / name)


def build(cfg, seed=0):
    """A model with its weights initialised from a seed."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def distill(student=None, teacher=None, teacher_ckpt='random', seed=0, **entries):
    """A DetectionDistill with ``entries`` as its ``distill``."""
    entries = entries or dict(rcka=rcka())
    return build(
        dict(
            type='kd_ext.DetectionDistill',
            student=student or fcos(),
            teacher=teacher or fcos(8),
            teacher_ckpt=teacher_ckpt,
            distill=entries,
        ),
        seed,
    )


def rcka(**changes):
    """An RCKA entry that fits small maps."""
    return {**dict(type='kd_ext.RCKALoss', at='neck', patch_size=2), **changes}


def batch(size=(64, 96), count=2, num_classes=3, seed=0):
    """A batch as a data loader gives it, before any preprocessing."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for index in range(count):
        height, width = size[0] - 8 * index, size[1] - 16 * index
        inputs.append(torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8))
        corners = torch.tensor([[4.0, 4.0, 30.0, 34.0], [20.0, 10.0, 56.0, 50.0]])
        labels = torch.randint(0, num_classes, (2,), generator=generator)
        samples.append(
            DetDataSample(
                metainfo=dict(
                    img_id=index, img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0)
                ),
                gt_instances=InstanceData(bboxes=corners, labels=labels),
            )
        )
    return dict(inputs=inputs, data_samples=samples)


def losses(model, data=None):
    """The raw loss dict of one training forward."""
    data = model.data_preprocessor(data or batch(), True)
    return model(**data, mode='loss')
