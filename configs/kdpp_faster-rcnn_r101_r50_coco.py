# KD++ of the ND authors: KL on logits and ND, their weights
_base_ = './faster-rcnn_r50_coco.py'
teacher_ckpt = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'faster_rcnn/faster_rcnn_r101_fpn_2x_coco/faster_rcnn_r101_fpn_2x_coco_'
    'bbox_mAP-0.398_20200504_210455-1d2dac9c.pth'
)
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
    teacher_ckpt=teacher_ckpt,
    distill=dict(
        kl=dict(type='kd_ext.LogitKLLoss', at='logits', loss_weight=1.0),
        nd=dict(type='kd_ext.NDLoss', at='embedding', loss_weight=1.0),
    ),
)
