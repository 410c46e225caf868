# LONDON's full objective: both terms on the same connected stages. OFD's
# weight for a pixel of VOC 2012 at 513 x 513, at this size
_base_ = './lipschitz_ssd300_vgg16_mobilenet-v2_voc0712.py'
model = dict(
    distill=dict(
        lipschitz=dict(
            at='pre_relu', connector=dict(type='kd_ext.ConvBNConnector')
        ),
        ofd=dict(
            type='mmrazor.OFDLoss',
            at='pre_relu',
            level_weights=(0.5, 1.0),
            connector='lipschitz',
            teacher_connector=dict(type='kd_ext.RunningMarginConnector'),
            mul_factor=3.4e4,
        ),
    )
)
