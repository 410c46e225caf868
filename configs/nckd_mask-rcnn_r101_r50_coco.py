# mmdet's COCO AP, box and mask: T 40.8 and 36.6, S 38.2 and 34.7
# no weight is published: this one is our choice
_base_ = [
    './_base_/pairs/mask-rcnn_r101_r50_coco.py',
    './_base_/distill/nckd.py',
]
model = dict(distill=dict(nckd=dict(_base_.nckd, class_means='online')))
