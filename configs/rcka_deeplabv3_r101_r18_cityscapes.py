# mmseg's Cityscapes mIoU on this schedule: T 80.20, S 76.70
_base_ = [
    './_base_/pairs/deeplabv3_r101_r18_cityscapes.py',
    './_base_/recipes/rcka_segmentation.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
