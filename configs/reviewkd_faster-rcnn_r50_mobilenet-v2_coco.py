# ReviewKD, the row below ReviewKD++, with the weight that DKD's code for
# detection (mdistiller) has for this pair
_base_ = [
    './_base_/pairs/faster-rcnn_r50_mobilenet-v2_coco.py',
    './_base_/distill/reviewkd.py',
]
model = dict(distill=dict(reviewkd=dict(_base_.reviewkd, loss_weight=2.0)))
