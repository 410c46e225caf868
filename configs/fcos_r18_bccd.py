_base_ = [
    './_base_/models/fcos_small.py',
    './_base_/datasets/bccd_detection.py',
    './_base_/schedules/schedule_small.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=3))
