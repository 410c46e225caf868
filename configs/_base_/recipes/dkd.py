# DKD on the logits of all proposals; weights and temperature of its authors'
# detection code
dkd = dict(type='mmrazor.DKDLoss', at='logits', tau=1.0, alpha=1.0, beta=0.25)
