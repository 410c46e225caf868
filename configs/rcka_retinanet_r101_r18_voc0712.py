_base_ = [
    './_base_/pairs/retinanet_r101_r18_voc0712.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=dict(_base_.rcka, inter_weight=0.0)))
