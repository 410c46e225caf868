"""Which of mmdet's own configs have a tiny twin in :mod:`zoo`."""

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
    'Conditional DETR': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'DAB-DETR': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
}
# detectors whose regions are read as well, less common ones
MORE = {
    'Libra R-CNN': 'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py',
    'Grid R-CNN': 'grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py',
    'PISA': 'pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py',
    'SABL Faster R-CNN': 'sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py',
    'QueryInst': 'queryinst/queryinst_r50_fpn_1x_coco.py',
    'FSAF': 'fsaf/fsaf_r50_fpn_1x_coco.py',
    'SABL RetinaNet': 'sabl/sabl-retinanet_r50_fpn_1x_coco.py',
    'LD': 'ld/ld_r18-gflv1-r101_fpn_1x_coco.py',
    'NAS-FCOS': 'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
    'YOLOv3': 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
    'RTMDet-Ins': 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'CondInst': 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'YOLACT': 'yolact/yolact_r50_1xb8-55e_coco.py',
    'SOLO': 'solo/solo_r50_fpn_1x_coco.py',
    'SOLOv2': 'solov2/solov2_r50_fpn_1x_coco.py',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'MaskFormer': 'maskformer/maskformer_r50_ms-16xb1-75e_coco.py',
    'DDQ DETR': 'ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
}
# detectors whose regions cannot be read
UNREAD = {
    'FreeAnchor': 'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'AutoAssign': 'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
    'CenterNet': 'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'CornerNet': 'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
}
# heads whose default normalisation has 32 groups
SMALL_GROUPS = (
    'FCOSHead',
    'ATSSHead',
    'GFLHead',
    'PAAHead',
    'VFNetHead',
    'TOODHead',
    'DDODHead',
    'LDHead',
    'CondInstBboxHead',
    'AutoAssignHead',
)
# their encoding of positions is 256 wide whatever the config says
FULL_WIDTH = ('Conditional DETR', 'DINO', 'DDQ DETR')
SSD300 = 'ssd/ssd300_coco.py'  # VGG16 is as wide as it is
SIZES = {'SSD': (320, 320), SSD300: (304, 304), 'DDOD': (384, 400)}
MASKS = (
    'Mask R-CNN',
    'HTC',
    'QueryInst',
    'RTMDet-Ins',
    'CondInst',
    'YOLACT',
    'SOLO',
    'SOLOv2',
    'Mask2Former',
    'MaskFormer',
)
# all images of a batch are of one size
ONE_SIZE = ('YOLACT', 'RTMDet-Ins')
# changes beyond those of ``zoo.shrink``
ADJUST = {
    'Grid R-CNN': {
        'roi_head.grid_head.num_convs': 1,
        'roi_head.grid_head.point_feat_channels': 4,
        'roi_head.grid_head.norm_cfg.num_groups': 9,
    },
    'YOLACT': {'mask_head.proto_channels': (16, 16, 16, None, 16, 32)},
    'SOLO': {'mask_head.num_grids': [12, 10, 8, 6, 4]},
    'SOLOv2': {
        'mask_head.num_grids': [12, 10, 8, 6, 4],
        'mask_head.feat_channels': 16,
        'mask_head.norm_cfg': dict(type='GN', num_groups=4),
    },
    'Mask2Former': {'panoptic_head.loss_cls.class_weight': [1.0, 1.0, 1.0, 0.1], 'train_cfg.num_points': 128},
    'MaskFormer': {
        'panoptic_head.loss_cls.class_weight': [1.0, 1.0, 1.0, 0.1],
        'panoptic_head.num_stuff_classes': 0,
        'panoptic_fusion_head.num_stuff_classes': 0,
    },
    'CenterNet': {'neck.num_deconv_filters': (16, 16, 16), 'bbox_head.in_channels': 16, 'bbox_head.feat_channels': 16},
    'CornerNet': {
        'backbone.downsample_times': 3,
        'backbone.stage_channels': [16, 16, 16, 16],
        'backbone.stage_blocks': [1, 1, 1, 1],
        'backbone.feat_channel': 16,
        'bbox_head.in_channels': 16,
    },
}
