# logit CKA as released: the flattened images of a GPU are the samples, not
# centred (of two images, centred, the CKA is always 1), intra 10 and inter 10
rcka = dict(
    type='kd_ext.LogitCKALoss',
    at='decode_head.conv_seg',
    samples='images',
    center=False,
    intra_weight=1.0,
    inter_weight=1.0,
    loss_weight=10.0,
)
