# published Cityscapes mIoU: T 78.55, S 70.09, RCKA 74.71; mmseg's own T 79.76,
# S 74.87 on this schedule, so compare with the plain config of this student
_base_ = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
teacher_ckpt = (
    'https://download.openmmlab.com/mmsegmentation/v0.5/'
    'pspnet/pspnet_r101-d8_512x1024_80k_cityscapes/'
    'pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth'
)
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
    teacher_ckpt=teacher_ckpt,
    distill=dict(
        rcka=dict(
            type='kd_ext.LogitCKALoss',
            at='decode_head.conv_seg',
            intra_weight=1.0,
            inter_weight=1.0,
            loss_weight=10.0,
        )
    ),
)
