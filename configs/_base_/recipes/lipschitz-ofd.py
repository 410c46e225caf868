# LONDON's full objective: both terms read the same connected stages, before
# their last ReLU, as published. The Lipschitz weight is ours. OFD divides by
# 1e5 for a crop of 513 x 513 in the released segmentation code; by pixels that
# is 2.3e5 for an image of 1000 x 600
_base_ = '../distill/lipschitz.py'
lipschitz = dict(at='pre_relu', connector=dict(type='kd_ext.ConvBNConnector'))
ofd = dict(
    type='mmrazor.OFDLoss',
    at='pre_relu',
    level_weights=(0.125, 0.25, 0.5, 1.0),
    connector='lipschitz',
    teacher_connector=dict(type='mmrazor.OFDTeacherConnector'),
    mul_factor=2.3e5,
)
