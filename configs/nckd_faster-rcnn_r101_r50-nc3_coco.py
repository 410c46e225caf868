# NCKD with NC3: the student's last layer is the teacher's class means. Weights
# and scale are ours. Its plain config: faster-rcnn_r50-nc3_coco.py
# class means first:
#   python tools/class_means.py \
#       configs/nckd_faster-rcnn_r101_r50_coco.py \
#       --out work_dirs/faster-rcnn_r101_ms-3x_coco_means.pth
_base_ = [
    './_base_/pairs/faster-rcnn_r101_r50_coco.py',
    './_base_/distill/nckd.py',
]
means = _base_.class_means
classifier = dict(type='kd_ext.PrototypeClassifier', class_means=means)
bbox_head = dict(cls_predictor_cfg=classifier)
model = dict(
    student=dict(roi_head=dict(bbox_head=bbox_head)),
    distill=dict(nckd=dict(_base_.nckd, class_means=means)),
)
