# the ND authors' pair: a teacher of a 3x schedule (theirs is Detectron2's,
# this is mmdet's: 41.8 AP). class_means is a file of tools/class_means.py
_base_ = '../../faster-rcnn_r18_coco.py'
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='mmdet::faster_rcnn/faster-rcnn_r101_fpn_ms-3x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/'
    'faster_rcnn/faster_rcnn_r101_fpn_mstrain_3x_coco/'
    'faster_rcnn_r101_fpn_mstrain_3x_coco_20210524_110822-4d4d2ca8.pth',
)
class_means = 'work_dirs/faster-rcnn_r101_ms-3x_coco_means.pth'
