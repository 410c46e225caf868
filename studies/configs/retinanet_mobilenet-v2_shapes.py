# anchors and inverted residuals, where the teachers of the generated shapes
# have points and plain residuals
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../../configs/_base_/datasets/shapes_detection.py',
    '../../configs/_base_/schedules/schedule_small.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(
    _scope_='mmdet',
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        widen_factor=0.5,
        out_indices=(2, 4, 7),  # strides 8, 16, 32
    ),
    neck=dict(in_channels=[16, 48, 1280], out_channels=64, start_level=0, num_outs=3),
    bbox_head=dict(
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32]),
    ),
    test_cfg=dict(nms_pre=300, max_per_img=50),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
