_base_ = [
    './_base_/pairs/retinanet_r101_r18_voc0712.py',
    './_base_/distill/lipschitz.py',
]
model = dict(distill=dict(lipschitz=_base_.lipschitz))
