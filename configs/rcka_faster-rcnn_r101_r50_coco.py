# a released recipe; mmdet's COCO AP: T 39.8, S 38.4
_base_ = [
    './_base_/pairs/faster-rcnn_r101-2x_r50-2x_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
