_base_ = '../../deeplabv3plus_r18_voc12aug.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='mmseg::deeplabv3plus/'
    'deeplabv3plus_r101-d8_4xb4-40k_voc12aug-512x512.py',
    teacher_ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/'
    'deeplabv3plus/deeplabv3plus_r101-d8_512x512_40k_voc12aug/'
    'deeplabv3plus_r101-d8_512x512_40k_voc12aug_20200613_205333-faf03387.pth',
)
