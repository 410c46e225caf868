_base_ = './fcos_r18_shapes.py'
model = dict(
    backbone=dict(base_channels=32), neck=dict(in_channels=[64, 128, 256])
)
