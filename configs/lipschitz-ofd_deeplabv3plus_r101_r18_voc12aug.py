# LONDON's full objective, as released: before the last ReLU of each stage, in
# both networks, beside OFD. Released OFD for segmentation also compares the
# ASPP and the decoder; here it is the four stages. Schedule and the Lipschitz
# weight are not published: the first is mmseg's, the second ours
_base_ = [
    './_base_/pairs/deeplabv3plus_r101_r18_voc12aug.py',
    './_base_/recipes/lipschitz-ofd.py',
]
connector = dict(type='kd_ext.ConvBNConnector', norm_cfg=dict(type='SyncBN'))
model = dict(
    distill=dict(
        lipschitz=dict(_base_.lipschitz, connector=connector),
        ofd=dict(_base_.ofd, mul_factor=1e5),
    )
)
