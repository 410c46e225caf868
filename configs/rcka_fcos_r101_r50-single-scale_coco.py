# rcka_fcos_r101_r50_coco.py on the schedule of the released recipe
_base_ = [
    './_base_/pairs/fcos_r101_r50-single-scale_coco.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=dict(_base_.rcka, inter_weight=0.0)))
