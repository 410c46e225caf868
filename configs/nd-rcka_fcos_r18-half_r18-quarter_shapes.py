_base_ = './rcka_fcos_r18-half_r18-quarter_shapes.py'
model = dict(
    distill=dict(
        nd=dict(type='kd_ext.NDLoss', at='embedding', loss_weight=1.0)
    )
)
