# published COCO AP: T 40.8, S 38.5, RCKA 39.8. The schedule is mmdet's for
# this student, two scales; the released one is in the single-scale twin
_base_ = ['./_base_/pairs/fcos_r101_r50_coco.py', './_base_/recipes/rcka.py']
model = dict(distill=dict(rcka=dict(_base_.rcka, inter_weight=0.0)))
