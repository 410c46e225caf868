# on the grid of VGG16's SSD300: the same strides, sizes and anchors; the third
# level is the backbone's own
_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'
# mmdet 3.3's own SSD cannot predict, see kd_ext/patches/ssd.py
custom_imports = dict(imports=['kd_ext'])
channels = (32, 96, 1280, 256, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(2, 4, 7),
        init_cfg=dict(
            type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2'
        ),
    ),
    neck=dict(
        in_channels=channels[:3],
        out_channels=channels,
        level_strides=(2, 1, 1),
        level_paddings=(1, 0, 0),
        l2_norm_scale=None,
    ),
    bbox_head=dict(in_channels=channels),
)
