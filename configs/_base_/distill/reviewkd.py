# the published weight
reviewkd = dict(type='kd_ext.ReviewKDLoss', at='neck', loss_weight=1.0)
