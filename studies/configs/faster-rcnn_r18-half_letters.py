_base_ = [
    '../../configs/_base_/models/faster-rcnn_small.py',
    '../../configs/_base_/datasets/shapes_detection.py',
    '../../configs/_base_/schedules/schedule_small.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    roi_head=dict(bbox_head=dict(num_classes=28)),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
