# temperature and weight of mmrazor's configs
cwd = dict(
    type='mmrazor.ChannelWiseDivergence', at='neck', tau=1.0, loss_weight=10.0
)
