# published COCO AP with the authors' mimic term, never released: 42.4.
# Here mimicry is MSE on standardised features (PKD), with PKD's own weight for
# two-stage teachers, 6
_base_ = [
    './rcka_faster-rcnn_cascade-mask-x101_r50_coco.py',
    './_base_/distill/pkd.py',
]
model = dict(distill=dict(pkd=dict(_base_.pkd, levels=(0, 1, 2, 3))))
