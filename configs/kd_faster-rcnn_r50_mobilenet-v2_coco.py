# KD, the row below KD++: the same without ND
_base_ = [
    './_base_/pairs/faster-rcnn_r50_mobilenet-v2_coco.py',
    './_base_/distill/kd.py',
]
model = dict(distill=dict(kd=_base_.kd))
