_base_ = [
    './_base_/pairs/fcos_r18-half_r18-quarter_shapes.py',
    './_base_/distill/rcka.py',
]
model = dict(
    distill=dict(rcka=dict(_base_.rcka, patch_size=4, loss_weight=0.5))
)
