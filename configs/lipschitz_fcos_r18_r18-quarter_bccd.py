_base_ = [
    './_base_/pairs/fcos_r18_r18-quarter_bccd.py',
    './_base_/distill/lipschitz.py',
]
model = dict(distill=dict(lipschitz=dict(_base_.lipschitz, loss_weight=0.5)))
