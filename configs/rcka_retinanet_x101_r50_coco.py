# published COCO AP: T 41.0, S 37.4, RCKA 40.3
_base_ = [
    './_base_/pairs/retinanet_x101_r50_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=dict(_base_.rcka, inter_weight=0.0)))
