# the published weight
kd = dict(type='kd_ext.LogitKLLoss', at='logits', loss_weight=1.0)
