# The Lipschitz term alone; without connectors, which can match sigma without
# the student. VOC val mIoU in the code base the paper builds on: T 77.89, S
# alone 72.07; neither the paper's code nor its weights for it are published
_base_ = [
    './_base_/pairs/deeplabv3plus_r101_r18_voc12aug.py',
    './_base_/distill/lipschitz.py',
]
model = dict(distill=dict(lipschitz=_base_.lipschitz))
