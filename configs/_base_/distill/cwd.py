# temperature and weight of mmrazor's configs
cwd = dict(
    type='mmrazor.ChannelWiseDivergence',
    at='neck',
    tau=1.,
    loss_weight=10.)
