_base_ = [
    './_base_/pairs/fcos_r18-half_r18-quarter_shapes.py',
    './_base_/distill/kd.py',
    './_base_/distill/nd.py',
]
model = dict(distill=dict(kd=_base_.kd, nd=_base_.nd))
