_base_ = './kdpp_faster-rcnn_r18_r18-quarter_bccd.py'
model = dict(
    distill=dict(
        _delete_=True,
        review=dict(
            type='kd_ext.ReviewKDLoss',
            at='neck',
            mid_channels=64,
            loss_weight=1.0,
        ),
        nd=dict(type='kd_ext.NDLoss', at='embedding', loss_weight=1.0),
    )
)
