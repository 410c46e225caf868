# published COCO AP: T 45.6, S 38.4, RCKA 41.4
_base_ = [
    './_base_/pairs/faster-rcnn_cascade-mask-x101_r50_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
