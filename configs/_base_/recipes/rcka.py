# RCKA as published for two-stage detectors and GFL: intra 10 and inter 10,
# not centred. RetinaNet, FCOS and RepPoints have intra alone: inter_weight=0.0
_base_ = '../distill/rcka.py'
rcka = dict(
    levels=(0, 1, 2, 3), intra_weight=1.0, inter_weight=1.0, center=False
)
