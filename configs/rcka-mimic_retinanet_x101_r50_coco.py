# published COCO AP with the authors' mimic term, never released: 40.7.
# Here mimicry is MSE on standardised features (PKD), with PKD's own weight for
# one-stage teachers, 10
_base_ = ['./rcka_retinanet_x101_r50_coco.py', './_base_/distill/pkd.py']
model = dict(
    distill=dict(pkd=dict(_base_.pkd, levels=(0, 1, 2, 3), loss_weight=10.0))
)
