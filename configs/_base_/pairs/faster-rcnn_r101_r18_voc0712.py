_base_ = '../../faster-rcnn_r18_voc0712.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='kd_ext::faster-rcnn_r101_voc0712.py',
    teacher_ckpt='work_dirs/faster-rcnn_r101_voc0712/epoch_4.pth',
)
