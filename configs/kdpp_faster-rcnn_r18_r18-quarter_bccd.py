_base_ = [
    './_base_/pairs/faster-rcnn_r18_r18-quarter_bccd.py',
    './_base_/distill/kd.py',
    './_base_/distill/nd.py',
]
model = dict(distill=dict(kd=_base_.kd, nd=_base_.nd))
