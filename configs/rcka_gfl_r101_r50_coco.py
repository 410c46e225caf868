# a released recipe; mmdet's COCO AP: T 44.7, S 40.2 on 1x
_base_ = ['./_base_/pairs/gfl_r101_r50_coco.py', './_base_/recipes/rcka.py']
model = dict(distill=dict(rcka=_base_.rcka))
