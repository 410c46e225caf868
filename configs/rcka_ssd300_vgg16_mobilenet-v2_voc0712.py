_base_ = [
    './_base_/pairs/ssd300_vgg16_mobilenet-v2_voc0712.py',
    './_base_/recipes/rcka.py',
]
model = dict(
    distill=dict(rcka=dict(_base_.rcka, levels=(0, 1, 2), inter_weight=0.0))
)
