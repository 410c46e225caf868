# DKD++: DKD on logits and ND. Not published for detection: DKD's weights are
# those of its authors, ND's that of KD++
# class means first:
#   python tools/class_means.py \
#       configs/dkdpp_faster-rcnn_r101_r50_coco.py \
#       --out work_dirs/faster-rcnn_r101_ms-3x_coco_means.pth
_base_ = [
    './_base_/pairs/faster-rcnn_r101_r50_coco.py',
    './_base_/recipes/dkd.py',
    './_base_/distill/nd.py',
]
nd = dict(_base_.nd, class_means=_base_.class_means)
model = dict(distill=dict(dkd=_base_.dkd, nd=nd))
