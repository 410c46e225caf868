_base_ = './faster-rcnn_r18-half_letters.py'
model = dict(backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]))
