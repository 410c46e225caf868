# the weight of mmrazor's Faster R-CNN
pkd = dict(type='mmrazor.PKDLoss', at='neck', loss_weight=6.0)
