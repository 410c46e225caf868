_base_ = '../../faster-rcnn_r18-quarter_bccd.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='kd_ext::faster-rcnn_r18_bccd.py',
    teacher_ckpt='work_dirs/faster-rcnn_r18_bccd/epoch_12.pth',
)
