_base_ = './faster-rcnn_r18_voc0712.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='{{ fileDirname }}/faster-rcnn_r101_voc0712.py',
    teacher_ckpt='work_dirs/faster-rcnn_r101_voc0712/epoch_4.pth',
    distill=dict(
        rcka=dict(
            type='kd_ext.RCKALoss',
            at='neck',
            levels=(0, 1, 2, 3),
            intra_weight=1.0,
            inter_weight=1.0,
            center=False,
            loss_weight=10.0,
        )
    ),
)
