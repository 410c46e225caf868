# ReviewKD++ of the ND authors: ReviewKD and ND, their weights
_base_ = [
    './_base_/pairs/faster-rcnn_r50_mobilenet-v2_coco.py',
    './_base_/distill/reviewkd.py',
    './_base_/distill/nd.py',
]
model = dict(
    distill=dict(
        reviewkd=dict(_base_.reviewkd, loss_weight=2.2),
        nd=dict(_base_.nd, loss_weight=1.5),
    )
)
