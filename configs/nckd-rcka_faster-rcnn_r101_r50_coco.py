# NCKD and RCKA together
_base_ = [
    './_base_/pairs/faster-rcnn_r101_r50_coco.py',
    './_base_/distill/nckd.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(nckd=_base_.nckd, rcka=_base_.rcka))
