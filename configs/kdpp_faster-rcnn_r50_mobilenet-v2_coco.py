# KD++ of the ND authors: KL on logits and ND, their weights
_base_ = [
    './_base_/pairs/faster-rcnn_r50_mobilenet-v2_coco.py',
    './_base_/distill/kd.py',
    './_base_/distill/nd.py',
]
model = dict(distill=dict(kd=_base_.kd, nd=_base_.nd))
