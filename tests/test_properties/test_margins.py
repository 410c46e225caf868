"""What the margin ReLU promises, on features of any kind."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from kd_ext.connectors import RunningMarginConnector, bn_margin
from tests.helpers.hypothesis_tries import tries
from tests.helpers.loss_strategies import batches, sizes, tensors, widths


@tries(60)
@given(data=st.data(), shape=st.tuples(batches, widths, sizes, sizes))
def test_running_margins(data, shape):
    features = data.draw(tensors(shape))
    before = features.clone()
    connector = RunningMarginConnector(shape[1])
    result = connector(features)
    assert result.isfinite().all() and not result.requires_grad
    assert result.shape == features.shape and torch.equal(features, before)
    assert (connector.margin <= 0).all()
    # by its definition, over the one batch that was seen
    values = features.double().transpose(0, 1).flatten(1)
    negative = (values < 0).sum(1)
    wanted = values.clamp(max=0).sum(1) / negative.clamp(min=1)
    assert_close(connector.margin.double(), wanted, rtol=1e-5, atol=0)
    # it may be that nothing at all was seen
    empty = connector(features[:0])
    assert empty.shape == features[:0].shape
    assert_close(connector.margin.double(), wanted, rtol=1e-5, atol=0)


numbers = st.floats(-1e4, 1e4, width=32)


@tries(100)
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_margins_of_a_norm(pairs):
    norm = nn.BatchNorm2d(len(pairs))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([scale for scale, _ in pairs]))
        norm.bias.copy_(torch.tensor([mean for _, mean in pairs]))
    margin = bn_margin(norm)
    assert margin.isfinite().all() and (margin <= 0).all()
    # a mean over what is below 0 and below the mean of all
    assert (margin <= norm.bias.clamp(max=0) + 1e-3 * norm.weight.abs()).all()
