_base_ = './fcos_r18_bccd.py'
model = dict(
    backbone=dict(base_channels=16), neck=dict(in_channels=[32, 64, 128])
)
