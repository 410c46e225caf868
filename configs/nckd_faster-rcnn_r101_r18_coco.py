# no weight is published: this one is our choice
_base_ = [
    './_base_/pairs/faster-rcnn_r101_r18_coco.py',
    './_base_/distill/nckd.py',
]
model = dict(distill=dict(nckd=_base_.nckd))
