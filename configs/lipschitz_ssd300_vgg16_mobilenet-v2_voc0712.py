_base_ = [
    './_base_/pairs/ssd300_vgg16_mobilenet-v2_voc0712.py',
    './_base_/distill/lipschitz.py',
]
model = dict(distill=dict(lipschitz=_base_.lipschitz))
