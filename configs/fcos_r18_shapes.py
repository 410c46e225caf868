_base_ = [
    './_base_/models/fcos_small.py',
    './_base_/datasets/shapes_detection.py',
    './_base_/schedules/schedule_small.py',
    'mmdet::_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
custom_hooks = [dict(type='kd_ext.ProgressHook')]
