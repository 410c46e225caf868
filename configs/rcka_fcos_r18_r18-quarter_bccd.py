_base_ = './fcos_r18-quarter_bccd.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='{{ fileDirname }}/fcos_r18_bccd.py',
    teacher_ckpt='work_dirs/fcos_r18_bccd/epoch_12.pth',
    distill=dict(
        rcka=dict(
            type='kd_ext.RCKALoss',
            at='neck',
            patch_size=4,
            inter_weight=1.0,
            loss_weight=0.5,
        )
    ),
)
