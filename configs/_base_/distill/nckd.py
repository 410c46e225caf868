# the weight is ours
nckd = dict(type='kd_ext.NCKDLoss', at='embedding', loss_weight=0.1)
