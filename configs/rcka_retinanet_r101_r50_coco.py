# a released recipe; mmdet's COCO AP: T 38.9, S 37.4
_base_ = [
    './_base_/pairs/retinanet_r101_r50_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=dict(_base_.rcka, inter_weight=0.0)))
# the released schedule, 2x
train_cfg = dict(max_epochs=24)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=24, milestones=[16, 22]),
]
