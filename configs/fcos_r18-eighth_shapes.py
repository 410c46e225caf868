_base_ = './fcos_r18_shapes.py'
model = dict(
    backbone=dict(base_channels=8), neck=dict(in_channels=[16, 32, 64]))
