# a released recipe; mmseg's Cityscapes mIoU: T 80.20, S 74.87
_base_ = [
    './_base_/pairs/deeplabv3_r101_pspnet_r18_cityscapes.py',
    './_base_/recipes/rcka_segmentation.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
