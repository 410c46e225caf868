# weights 10 and 10 as published; comparing pixels and classes, centred, is
# ours (the released code compares the images of a GPU)
rcka = dict(
    type='kd_ext.LogitCKALoss',
    at='decode_head.conv_seg',
    intra_weight=1.0,
    inter_weight=1.0,
    loss_weight=10.0,
)
