_base_ = './ssd300_mobilenet-v2_voc0712.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='{{ fileDirname }}/ssd300_vgg16_voc0712.py',
    teacher_ckpt='work_dirs/ssd300_vgg16_voc0712/epoch_24.pth',
    distill=dict(
        rcka=dict(
            type='kd_ext.RCKALoss',
            at='neck',
            levels=(0, 1, 2),
            intra_weight=1.0,
            inter_weight=0.0,
            center=False,
            loss_weight=10.0,
        )
    ),
)
