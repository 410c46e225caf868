# published Cityscapes mIoU: T 78.55, S 70.09, RCKA 74.71; mmseg's own T 79.76,
# S 74.87 on this schedule, so compare with the plain config of this student
_base_ = [
    './_base_/pairs/pspnet_r101_r18_cityscapes.py',
    './_base_/recipes/rcka_segmentation.py',
]
model = dict(distill=dict(rcka=_base_.rcka))
