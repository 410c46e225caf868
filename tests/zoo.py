"""Tiny twins of mmdet's own configs: the real classes at toy widths."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

BASE, WIDTH, CLASSES = 4, 16, 3
# by name: config of mmdet, and changes beyond those of ``shrink``
CONFIGS = {
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'Double-Head R-CNN': 'double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
    'Dynamic R-CNN': 'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'HTC': 'htc/htc-without-semantic_r50_fpn_1x_coco.py',
    'Sparse R-CNN': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'ATSS': 'atss/atss_r50_fpn_1x_coco.py',
    'GFL': 'gfl/gfl_r50_fpn_1x_coco.py',
    'PAA': 'paa/paa_r50_fpn_1x_coco.py',
    'VFNet': 'vfnet/vfnet_r50_fpn_1x_coco.py',
    'TOOD': 'tood/tood_r50_fpn_1x_coco.py',
    'RTMDet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'YOLOX': 'yolox/yolox_tiny_8xb8-300e_coco.py',
    'SSD': 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'DDOD': 'ddod/ddod_r50_fpn_1x_coco.py',
    'YOLOF': 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'FoveaBox': 'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    'RepPoints': 'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'DETR': 'detr/detr_r50_8xb2-150e_coco.py',
    'Conditional DETR': 'conditional_detr/'
                        'conditional-detr_r50_8xb2-50e_coco.py',
    'DAB-DETR': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'Deformable DETR': 'deformable_detr/'
                       'deformable-detr_r50_16xb2-50e_coco.py',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
}
# heads whose default normalisation has 32 groups
SMALL_GROUPS = ('FCOSHead', 'ATSSHead', 'GFLHead', 'PAAHead', 'VFNetHead',
                'TOODHead', 'DDODHead')
# their encoding of positions is 256 wide whatever the config says
FULL_WIDTH = ('Conditional DETR', 'DINO')
SSD300 = 'ssd/ssd300_coco.py'  # VGG16 is as wide as it is
SIZES = {'SSD': (320, 320), SSD300: (304, 304), 'DDOD': (384, 400)}
MASKS = ('Mask R-CNN', 'HTC')
NUMBERS = {256: WIDTH, 128: WIDTH // 2, 1024: 2 * WIDTH, 2048: 2 * WIDTH,
           300: 12, 900: 12, 100: 12}
KEYS = ('channels', 'feature_channel', 'embed_dims', 'num_feats',
        'hidden_dim', 'num_queries', 'num_proposals')


def detector(name, base=BASE):
    """Model config of a tiny twin; ``base`` sets the backbone's widths."""
    cfg = Config.fromfile(_configs() / CONFIGS.get(name, name)).model
    width = 256 if name in FULL_WIDTH else WIDTH
    return ConfigDict(shrink(cfg.to_dict(), base, width))


def _configs():
    import mmdet
    return Path(mmdet.__file__).parent / '.mim' / 'configs'


def shrink(model, base=BASE, width=WIDTH):
    """A ResNet18 of ``base`` channels, 16 wide necks and heads, 3 classes."""
    backbone, kind = model['backbone'], model['backbone']['type']
    if kind in ('SSDVGG', 'MobileNetV2'):
        backbone['init_cfg'] = None
        model['bbox_head']['num_classes'] = CLASSES
        if kind == 'MobileNetV2':
            backbone['widen_factor'] = base / 16
            first = 96 * base // 16
            for part, key in (('neck', 'in_channels'),
                              ('neck', 'out_channels'),
                              ('bbox_head', 'in_channels')):
                model[part][key] = (first, *model[part][key][1:])
        return model
    given = _in_channels(model['neck'])
    for key, value in model.items():
        if key != 'backbone':
            model[key] = _shrunk(value, key, width)
    model['data_preprocessor'].pop('batch_augments', None)
    if kind == 'ResNet':
        backbone.update(depth=18, base_channels=base, frozen_stages=-1,
                        norm_eval=False, init_cfg=None,
                        norm_cfg=dict(type='BN'), style='pytorch')
        for key in ('dcn', 'stage_with_dcn'):
            backbone.pop(key, None)
        widths = [base * 2**i for i in backbone.get('out_indices', range(4))]
        first = (model['neck'][0] if isinstance(model['neck'], list)
                 else model['neck'])
        first['in_channels'] = (widths if isinstance(given, list)
                                else widths[-1])
    else:  # CSPNeXt, CSPDarknet
        backbone.update(widen_factor=base / 64, init_cfg=None,
                        norm_cfg=dict(type='BN'))
        model['neck'].update(in_channels=[4 * base, 8 * base, 16 * base],
                             out_channels=WIDTH, norm_cfg=dict(type='BN'))
        model['bbox_head'].update(in_channels=WIDTH, feat_channels=WIDTH)
    head = model.get('bbox_head', {})
    if head.get('type') in SMALL_GROUPS:
        head['norm_cfg'] = dict(type='GN', num_groups=4)
    if 'decoder' in model:
        head['embed_dims'] = width
    return model


def _in_channels(neck):
    return (neck[0] if isinstance(neck, list) else neck)['in_channels']


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
    if key == 'num_classes':
        return CLASSES
    if key == 'stacked_convs':
        return 1
    if key == 'feedforward_channels':
        return 2 * WIDTH
    if any(key.endswith(known) for known in KEYS) and not isinstance(
            value, bool):
        if width != WIDTH and value in (128, 256):
            return value
        return NUMBERS.get(value, value)
    return value


def batch(name, **changes):
    """Two images with every class in them, large enough for the detector."""
    import tiny
    from mmdet.structures.mask import BitmapMasks
    size = SIZES.get(name, (128, 160))
    data = tiny.batch(**{**dict(size=size, num_classes=CLASSES), **changes})
    for sample in data['data_samples']:
        instances = sample.gt_instances
        # at SSD's finest level objects are small
        scale = 2 if name == 'SSD' else size[0] / 64
        corners = instances.bboxes.new_tensor(
            [[4., 4., 30., 34.], [20., 10., 56., 50.], [2., 30., 24., 54.]])
        sample.gt_instances = type(instances)(
            bboxes=corners * scale, labels=instances.labels.new_tensor(
                range(CLASSES)))
        height, width = sample.img_shape
        if name not in MASKS:
            continue
        masks = instances.bboxes.new_zeros(CLASSES, height, width).bool()
        for mask, box in zip(masks, (corners * scale).long().tolist()):
            mask[box[1]:box[3], box[0]:box[2]] = True
        sample.gt_instances.masks = BitmapMasks(masks.numpy(), height, width)
    return data
