_base_ = [
    './_base_/pairs/faster-rcnn_r101_r50_voc0712.py',
    './_base_/distill/lipschitz.py',
]
model = dict(distill=dict(lipschitz=_base_.lipschitz))
