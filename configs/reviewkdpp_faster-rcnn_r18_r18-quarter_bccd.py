_base_ = [
    './_base_/pairs/faster-rcnn_r18_r18-quarter_bccd.py',
    './_base_/distill/reviewkd.py',
    './_base_/distill/nd.py',
]
model = dict(
    distill=dict(reviewkd=dict(_base_.reviewkd, mid_channels=64), nd=_base_.nd)
)
