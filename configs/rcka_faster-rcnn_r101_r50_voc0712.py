_base_ = [
    './_base_/pairs/faster-rcnn_r101_r50_voc0712.py',
    './_base_/recipes/rcka.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
