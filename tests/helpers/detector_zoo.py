"""Tiny twins of mmdet's own configs: the real classes at toy widths."""

import copy
import functools
from pathlib import Path

from mmengine.config import Config
from torch.nn.functional import pad

from tests.helpers.detector_zoo_configs import (
    ADJUST,
    CONFIGS,
    FULL_WIDTH,
    MASKS,
    MORE,
    ONE_SIZE,
    SIZES,
    SMALL_GROUPS,
    SSD300,
    UNREAD,
)

__all__ = ['ALL', 'CLASSES', 'CONFIGS', 'READ', 'SSD300', 'UNREAD', 'batch', 'detector', 'read', 'shrink']

BASE, WIDTH, CLASSES = 4, 16, 3
READ = {**CONFIGS, **MORE}
ALL = {**READ, **UNREAD}
NUMBERS = {256: WIDTH, 128: WIDTH // 2, 1024: 2 * WIDTH, 2048: 2 * WIDTH, 300: 12, 900: 12, 100: 12}
KEYS = ('channels', 'feature_channel', 'embed_dims', 'num_feats', 'hidden_dim', 'num_queries', 'num_proposals')
CLASS_KEYS = ('num_classes', 'num_things_classes')


def detector(name, base=BASE):
    """Model config of a tiny twin; ``base`` sets the backbone's widths."""
    width = 256 if name in FULL_WIDTH else WIDTH
    model = shrink(copy.deepcopy(_read(ALL.get(name, name))), base, width)
    whole = Config(dict(model=model))
    whole.merge_from_dict({f'model.{key}': value for key, value in ADJUST.get(name, {}).items()})
    if name == 'LD':  # it has a teacher of its own
        whole.model.update(teacher_ckpt=None, teacher_config=dict(model=detector('GFL', 8)))
    return whole.model


@functools.lru_cache(None)
def _read(path):
    import mmdet

    folder = Path(mmdet.__file__).parent / '.mim' / 'configs'
    return Config.fromfile(folder / path).model.to_dict()


def shrink(model, base=BASE, width=WIDTH):
    """A ResNet18 of ``base`` channels, 16 wide necks and heads, 3 classes."""
    backbone, kind = model['backbone'], model['backbone']['type']
    if kind in ('SSDVGG', 'MobileNetV2'):
        backbone['init_cfg'] = None
        model['bbox_head']['num_classes'] = CLASSES
        if kind == 'MobileNetV2':
            backbone['widen_factor'] = base / 16
            _fit_mobilenet(model, base / 16)
        return model
    for key, value in model.items():
        if key != 'backbone':
            model[key] = _shrunk(value, key, width)
    model['data_preprocessor'].pop('batch_augments', None)
    if kind == 'ResNet':
        _small_resnet(model, base)
    elif kind != 'HourglassNet':  # CSPNeXt, CSPDarknet
        backbone.update(widen_factor=base / 64, init_cfg=None, norm_cfg=dict(type='BN'))
        model['neck'].update(in_channels=[4 * base, 8 * base, 16 * base], out_channels=WIDTH, norm_cfg=dict(type='BN'))
        model['bbox_head'].update(in_channels=WIDTH, feat_channels=WIDTH)
    head = model.get('bbox_head', {})
    if head.get('type') in SMALL_GROUPS:
        head['norm_cfg'] = dict(type='GN', num_groups=4)
    if 'decoder' in model:
        head['embed_dims'] = width
    return model


def _fit_mobilenet(model, factor):
    """Widths of what reads a MobileNetV2."""
    if model['neck']['type'] == 'YOLOV3Neck':
        widths = [int(factor * width) for width in (320, 96, 32)]
        model['neck'].update(in_channels=widths, out_channels=[WIDTH] * 3)
        model['bbox_head'].update(in_channels=[WIDTH] * 3, out_channels=[WIDTH] * 3)
        return
    first = int(96 * factor)
    for part, key in (('neck', 'in_channels'), ('neck', 'out_channels'), ('bbox_head', 'in_channels')):
        model[part][key] = (first, *model[part][key][1:])


def _small_resnet(model, base):
    """A ResNet18 of ``base`` channels, and the widths of what reads it."""
    backbone = model['backbone']
    backbone.update(
        depth=18,
        base_channels=base,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
        norm_cfg=dict(type='BN'),
        style='pytorch',
    )
    for key in ('dcn', 'stage_with_dcn'):
        backbone.pop(key, None)
    widths = [base * 2**i for i in backbone.get('out_indices', range(4))]
    reader = model.get('neck') or model['panoptic_head']
    reader = reader[0] if isinstance(reader, list) else reader
    reader['in_channels'] = widths if isinstance(reader['in_channels'], list) else widths[-1]


def _shrunk(value, key, width):
    if isinstance(value, dict):
        if value.get('type') == 'GN':
            return dict(value, num_groups=4)
        if value.get('type') == 'SyncBN':
            return dict(type='BN')
        if 'num_layers' in value and 'layer_cfg' in value:
            value = dict(value, num_layers=2)
        return {k: _shrunk(v, k, width) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_shrunk(item, key, width) for item in value)
    if key in CLASS_KEYS:
        return CLASSES
    if key == 'stacked_convs':
        return 1
    if key == 'feedforward_channels':
        return 2 * WIDTH
    if any(key.endswith(known) for known in KEYS) and not isinstance(value, bool):
        if width != WIDTH and value in (128, 256):
            return value
        return NUMBERS.get(value, value)
    return value


def batch(name, **changes):
    """Two images with every class in them, large enough for the detector."""
    from mmdet.structures.mask import BitmapMasks

    from tests.helpers import tiny_detectors as tiny

    size = SIZES.get(name, (128, 160))
    data = tiny.batch(**{**dict(size=size, num_classes=CLASSES), **changes})
    if name in ONE_SIZE:
        _same_size(data)
    for sample in data['data_samples']:
        instances = sample.gt_instances
        # at SSD's finest level objects are small
        scale = 2 if name == 'SSD' else size[0] / 64
        corners = instances.bboxes.new_tensor(
            [[4.0, 4.0, 30.0, 34.0], [20.0, 10.0, 56.0, 50.0], [2.0, 30.0, 24.0, 54.0]]
        )
        sample.gt_instances = type(instances)(
            bboxes=corners * scale, labels=instances.labels.new_tensor(range(CLASSES))
        )
        height, width = sample.img_shape
        if name not in MASKS:
            continue
        masks = instances.bboxes.new_zeros(CLASSES, height, width).bool()
        for mask, box in zip(masks, (corners * scale).long().tolist()):
            mask[box[1] : box[3], box[0] : box[2]] = True
        sample.gt_instances.masks = BitmapMasks(masks.numpy(), height, width)
    return data


def _same_size(data):
    """Pads all images to the size of the first, as a pipeline does."""
    height, width = size = data['data_samples'][0].img_shape
    data['inputs'] = [pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in data['inputs']]
    for sample in data['data_samples']:
        sample.set_metainfo(dict(img_shape=size, ori_shape=size))


def read(name, stage=None, levels=None, train=False):
    """A tiny detector, its batch, and the regions of its own loss."""
    from kd_ext.taps import find_head
    from kd_ext.taps.heads import own_loss_mode
    from tests.helpers import tiny_detectors as tiny

    model = tiny.build(detector(name))
    model.train(train)
    data = model.data_preprocessor(batch(name), True)
    head = find_head(model, 'student', stage, levels)
    with head.watch() as watch, own_loss_mode(model, head.module):
        model(**data, mode='loss')
    return model, head, data, head.regions(watch)
