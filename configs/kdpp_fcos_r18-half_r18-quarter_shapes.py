_base_ = './nd_fcos_r18-half_r18-quarter_shapes.py'
model = dict(
    distill=dict(
        kl=dict(type='kd_ext.LogitKLLoss', at='logits', loss_weight=1.0)
    )
)
