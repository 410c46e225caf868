# ReviewKD++ of the ND authors: ReviewKD and ND, their weights
# class means first:
#   python tools/class_means.py \
#       configs/reviewkdpp_faster-rcnn_r101_r50_coco.py \
#       --out work_dirs/faster-rcnn_r101_ms-3x_coco_means.pth
_base_ = [
    './_base_/pairs/faster-rcnn_r101_r50_coco.py',
    './_base_/distill/reviewkd.py',
    './_base_/distill/nd.py',
]
reviewkd = dict(_base_.reviewkd, loss_weight=1.4)
nd = dict(_base_.nd, class_means=_base_.class_means)
model = dict(distill=dict(reviewkd=reviewkd, nd=nd))
