# ours: pixels are the samples of logit CKA, and classes are compared over all
# of them, centred. Each term is at most 1 in this form too, so the weights are
# the published ones of the other; that they are right for it is not shown
_base_ = './rcka_pspnet_r101_r18_cityscapes.py'
model = dict(distill=dict(rcka=dict(samples='pixels', center=True)))
