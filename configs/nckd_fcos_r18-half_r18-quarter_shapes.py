_base_ = './nd_fcos_r18-half_r18-quarter_shapes.py'
model = dict(
    distill=dict(
        _delete_=True,
        nckd=dict(type='kd_ext.NCKDLoss', at='embedding', loss_weight=0.1),
    )
)
