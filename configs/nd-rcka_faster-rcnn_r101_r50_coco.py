# ND and RCKA together, each with its authors' weight
_base_ = [
    './_base_/pairs/faster-rcnn_r101_r50_coco.py',
    './_base_/distill/nd.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(nd=_base_.nd, rcka=_base_.rcka))
