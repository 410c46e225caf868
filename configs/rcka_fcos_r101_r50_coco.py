# published COCO AP: T 40.8, S 38.5, RCKA 39.8
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py'
teacher_ckpt = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'fcos/'
    'fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco/'
    'fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6.pth'
)
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
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
