# LONDON's full objective: both terms on the same connected stages. OFD's
# weight for a pixel of VOC 2012 at 513 x 513, at this size
_base_ = './lipschitz_faster-rcnn_r101_r18_voc0712.py'
model = dict(
    distill=dict(
        lipschitz=dict(
            at='pre_relu', connector=dict(type='kd_ext.ConvBNConnector')
        ),
        ofd=dict(
            type='mmrazor.OFDLoss',
            at='pre_relu',
            level_weights=(0.125, 0.25, 0.5, 1.0),
            connector='lipschitz',
            teacher_connector=dict(type='mmrazor.OFDTeacherConnector'),
            mul_factor=2.3e5,
        ),
    )
)
