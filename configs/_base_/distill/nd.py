# the published weight
nd = dict(type='kd_ext.NDLoss', at='embedding', loss_weight=1.0)
