# mmdet's COCO AP, box and mask: T 40.8 and 36.6, S 38.2 and 34.7
_base_ = [
    './_base_/pairs/mask-rcnn_r101_r50_coco.py',
    './_base_/distill/nd.py',
]
model = dict(distill=dict(nd=dict(_base_.nd, class_means='online')))
