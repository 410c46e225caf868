# FCOS R50 on the schedule of RCKA's released recipe: one scale, linear
# warm-up, no bias multipliers, no clipping; 2x, lr 0.01 for 16 images
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500
    ),
    dict(_base_.param_scheduler[1], end=24, milestones=[16, 22]),
]
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
)
