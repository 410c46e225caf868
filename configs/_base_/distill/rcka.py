# the published weight
rcka = dict(type='kd_ext.RCKALoss', at='neck', center=False, loss_weight=10.0)
