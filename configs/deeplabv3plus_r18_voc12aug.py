# mmseg has DeepLabV3+ R18 for Cityscapes only: its widths, on VOC
_base_ = (
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-40k_voc12aug-512x512.py'
)
model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(depth=18),
    decode_head=dict(
        c1_in_channels=64, c1_channels=12, in_channels=512, channels=128
    ),
    auxiliary_head=dict(in_channels=256, channels=64),
)
