# the weight is ours
lipschitz = dict(
    type='kd_ext.LipschitzLoss', at='backbone', relative=True, loss_weight=0.1
)
