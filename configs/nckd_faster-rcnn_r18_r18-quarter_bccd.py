_base_ = [
    './_base_/pairs/faster-rcnn_r18_r18-quarter_bccd.py',
    './_base_/distill/nckd.py',
]
model = dict(distill=dict(nckd=_base_.nckd))
