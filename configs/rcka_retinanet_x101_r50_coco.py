# published COCO AP: T 41.0, S 37.4, RCKA 40.3
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_2x_coco.py'
teacher_ckpt = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'retinanet/'
    'retinanet_x101_64x4d_fpn_1x_coco/'
    'retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth'
)
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
    teacher_ckpt=teacher_ckpt,
    distill=dict(
        rcka=dict(
            type='kd_ext.RCKALoss',
            at='neck',
            levels=(0, 1, 2, 3),
            intra_weight=1.0,
            inter_weight=0.0,
            center=False,
            loss_weight=10.0,
        )
    ),
)
