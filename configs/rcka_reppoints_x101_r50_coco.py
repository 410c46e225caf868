# a released recipe; mmdet's COCO AP: T 44.2, S 38.6
_base_ = [
    './_base_/pairs/reppoints_x101_r50_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=dict(_base_.rcka, inter_weight=0.0)))
