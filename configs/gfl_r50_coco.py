# GFL R50 on the schedule of RCKA's released recipe: 2x, one scale, lr 0.02 for
# 16 images (mmdet's own has 1x and 0.01)
_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
optim_wrapper = dict(optimizer=dict(lr=0.02))
train_cfg = dict(max_epochs=24)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=24, milestones=[16, 22]),
]
