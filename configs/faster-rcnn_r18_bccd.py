_base_ = [
    './_base_/models/faster-rcnn_small.py',
    './_base_/datasets/bccd_detection.py',
    './_base_/schedules/schedule_small.py',
    'mmdet::_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
