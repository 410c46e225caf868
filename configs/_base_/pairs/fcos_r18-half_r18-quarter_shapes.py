_base_ = '../../fcos_r18-quarter_shapes.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='kd_ext::fcos_r18-half_shapes.py',
    teacher_ckpt='work_dirs/fcos_r18-half_shapes/epoch_12.pth',
)
