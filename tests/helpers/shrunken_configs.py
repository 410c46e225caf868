"""A config's own detectors at an eighth of their widths, and its batches."""

import copy

import torch

from kd_ext.build.detector import model_config
from kd_ext.class_means.classifier import PrototypeClassifier
from kd_ext.teachers.build import are_several
from tests.helpers.tiny_detectors import batch

SHARE = 8
WIDTHS = (
    'width',
    'in_channels',
    'out_channels',
    'feat_channels',
    'base_channels',
    'fc_out_channels',
    'conv_out_channels',
)
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
        cfg['depth'] = min(cfg['depth'], 50)  # the same blocks, fewer of them
        if 'groups' in cfg:
            cfg['groups'] //= SHARE
    return cfg


def distilled(cfg, name):
    """The model of a config with an untrained teacher, shrunken.

    Class means of a file, which belong to the trained teacher, become running ones.
    """
    model = copy.deepcopy(cfg.model)
    for entry in model.distill.values():
        if 'class_means' in entry:
            entry.class_means = 'online'
    for layer in prototype_classifiers(model.student):
        layer.update(class_means=None, width=1024)
    several = are_several(model.teacher)
    model.teacher_ckpt = dict.fromkeys(model.teacher, 'random') if several else 'random'
    if not any(part in name for part in AS_THEY_ARE):
        teachers = model.teacher if several else dict(one=model.teacher)
        teachers = {key: shrink(model_config(one, 'teacher')) for key, one in teachers.items()}
        model.teacher = teachers if several else teachers['one']
        model.student = shrink(model.student)
    return model


def prototype_classifiers(cfg):
    """The configs of NC3's last layers in a model config."""
    for value in cfg.values():
        if isinstance(value, dict):
            if value.get('type') == 'kd_ext.PrototypeClassifier':
                yield value
            yield from prototype_classifiers(value)


def give_prototypes(model):
    """Class means in NC3's last layers, as a checkpoint brings them."""
    for module in model.modules():
        if isinstance(module, PrototypeClassifier):
            module.load_state_dict(dict(module.state_dict(), class_means=torch.randn_like(module.class_means)))


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
