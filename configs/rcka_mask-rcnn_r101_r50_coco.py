# mmdet's COCO AP, box and mask: T 40.8 and 36.6, S 39.2 and 35.4
_base_ = [
    './_base_/pairs/mask-rcnn_r101_r50_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
# the published schedule, 2x
train_cfg = dict(max_epochs=24)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=24, milestones=[16, 22]),
]
