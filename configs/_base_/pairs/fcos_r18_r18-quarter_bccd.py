_base_ = '../../fcos_r18-quarter_bccd.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='kd_ext::fcos_r18_bccd.py',
    teacher_ckpt='work_dirs/fcos_r18_bccd/epoch_12.pth',
)
