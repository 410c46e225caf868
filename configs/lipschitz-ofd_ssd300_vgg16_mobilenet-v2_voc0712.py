# VGG16 has no BN to take margins from: they are taken from its features
_base_ = [
    './_base_/pairs/ssd300_vgg16_mobilenet-v2_voc0712.py',
    './_base_/recipes/lipschitz-ofd.py',
]
ofd = dict(
    _base_.ofd,
    level_weights=(0.5, 1.0),
    teacher_connector=dict(type='kd_ext.RunningMarginConnector'),
    mul_factor=3.4e4,  # 300 x 300
)
model = dict(distill=dict(lipschitz=_base_.lipschitz, ofd=ofd))
