_base_ = [
    './_base_/pairs/mask-rcnn_cascade-mask-x101_r50_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
