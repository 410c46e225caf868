"""A config's own detectors at an eighth of their widths, and its batches."""

import copy

from kd_ext.build.detector import model_config
from kd_ext.teachers.build import are_several
from tests.helpers.tiny_detectors import batch

SHARE = 8
WIDTHS = ('in_channels', 'out_channels', 'feat_channels', 'base_channels', 'fc_out_channels', 'conv_out_channels')
# these are small, or have fixed widths, as they are
AS_THEY_ARE = ('bccd', 'shapes', 'ssd300')


def shrink(cfg):
    """The same layers, narrower; a model config is changed and given back.

    A grouped convolution's width goes by its number of groups.
    """
    for key, value in cfg.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, dict):
                shrink(item)
        if key in WIDTHS:
            cfg[key] = [width // SHARE for width in value] if isinstance(value, (list, tuple)) else value // SHARE
    backbone = cfg.get('backbone', {})
    if backbone.get('type') == 'MobileNetV2':  # its widths are in its code
        cfg['neck']['in_channels'] = [width * SHARE for width in cfg['neck']['in_channels']]
    if cfg.get('type') in ('ResNet', 'ResNeXt'):
        cfg['base_channels'] = 64 // SHARE
        if 'groups' in cfg:
            cfg['groups'] //= SHARE
    return cfg


def distilled(cfg, name):
    """The model of a config with an untrained teacher, shrunken."""
    model = copy.deepcopy(cfg.model)
    several = are_several(model.teacher)
    model.teacher_ckpt = dict.fromkeys(model.teacher, 'random') if several else 'random'
    if not any(part in name for part in AS_THEY_ARE):
        teachers = model.teacher if several else dict(one=model.teacher)
        teachers = {key: shrink(model_config(one, 'teacher')) for key, one in teachers.items()}
        model.teacher = teachers if several else teachers['one']
        model.student = shrink(model.student)
    return model


def data(name):
    """Two images of a size that the config's detector can take."""
    size = (300, 300) if 'ssd300' in name else (128, 160)
    items = batch(size)
    if '_mask-rcnn_' in name:
        _add_masks(items['data_samples'])
    return items


def _add_masks(samples):
    from mmdet.structures.mask import BitmapMasks

    for sample in samples:
        instances, (height, width) = sample.gt_instances, sample.img_shape
        masks = instances.bboxes.new_zeros(len(instances), height, width)
        for mask, box in zip(masks, instances.bboxes.long().tolist()):
            mask[box[1] : box[3], box[0] : box[2]] = 1
        instances.masks = BitmapMasks(masks.byte().numpy(), height, width)
