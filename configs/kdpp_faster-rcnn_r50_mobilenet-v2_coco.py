# KD++ of the ND authors: KL on logits and ND, their weights
# class means first:
#   python tools/class_means.py \
#       configs/kdpp_faster-rcnn_r50_mobilenet-v2_coco.py \
#       --out work_dirs/faster-rcnn_r50_ms-3x_coco_means.pth
_base_ = [
    './_base_/pairs/faster-rcnn_r50_mobilenet-v2_coco.py',
    './_base_/distill/kd.py',
    './_base_/distill/nd.py',
]
nd = dict(_base_.nd, class_means=_base_.class_means)
model = dict(distill=dict(kd=_base_.kd, nd=nd))
