_base_ = './kdpp_faster-rcnn_r18_r18-quarter_bccd.py'
model = dict(
    distill=dict(
        _delete_=True,
        nckd=dict(type='kd_ext.NCKDLoss', at='embedding', loss_weight=0.1),
    )
)
