_base_ = '../../ssd300_mobilenet-v2_voc0712.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='kd_ext::ssd300_vgg16_voc0712.py',
    teacher_ckpt='work_dirs/ssd300_vgg16_voc0712/epoch_24.pth',
)
