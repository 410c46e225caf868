import pytest
import torch
from mmrazor.models.distillers import OFDDistiller
from torch import nn
from torch.testing import assert_close

from kd_ext.connectors.margins import RunningMarginConnector, bn_margin


def norm(weights, biases):
    module = nn.BatchNorm2d(len(weights))
    module.weight.data = torch.tensor(weights)
    module.bias.data = torch.tensor(biases)
    return module


def test_bn_margin_is_that_of_mmrazor():
    # the last two are hardly ever negative: -3 s
    bn = norm([1.0, 0.5, -2.0, 0.1, 0.3, 0.2], [0.0, 0.3, -1.0, -5.0, 2.0, 0.7])
    assert_close(bn_margin(bn), OFDDistiller._get_margin_from_BN(None, bn).flatten())


def test_bn_margin_by_hand():
    # a normal variable's negative half has the mean -2 phi(0) = -sqrt(2/pi)
    assert_close(bn_margin(norm([3.0], [0.0])), torch.tensor([-3 * (2 / torch.pi) ** 0.5]))
    assert_close(bn_margin(norm([0.0, 0.0], [2.0, -2.0])), torch.tensor([0.0, -2]))


def test_bn_margin_is_the_mean_of_what_is_negative():
    bn = norm([1.0, 2.0, 0.5], [0.5, -1.0, 0.2]).train()
    features = bn(torch.randn(50, 3, 40, 40))
    running = RunningMarginConnector(3)
    running.update(features)
    assert_close(running.margin, bn_margin(bn), rtol=0.02, atol=0)


def test_running_margin():
    maps = torch.tensor([[-1.0, 2.0, -3.0], [4.0, 5.0, 6.0]])
    maps = maps.view(1, 2, 1, 3).requires_grad_()
    connector = RunningMarginConnector(2)
    out = connector(maps)
    # channel 0: (-1 - 3) / 2; channel 1 has no negative value: 0
    assert_close(connector.margin, torch.tensor([-2.0, 0.0]))
    # the mean square is (1 + 4 + 9 + 16 + 25 + 36) / 6
    assert_close(out * (91 / 6) ** 0.5, torch.tensor([[-1.0, 2.0, -2.0], [4.0, 5.0, 6.0]]).view(1, 2, 1, 3))
    assert not out.requires_grad
    connector(torch.full((1, 2, 2, 2), -5.0))  # (-4 - 20) / 6; -5
    assert_close(connector.margin, torch.tensor([-4.0, -5.0]))
    # a mean over images, large and small ones alike: (91 / 6 + 25) / 2
    assert_close(connector.square, torch.tensor((91 / 6 + 25) / 2))
    connector.eval()(torch.full((1, 2, 2, 2), -9.0))
    assert_close(connector.margin, torch.tensor([-4.0, -5.0]))
    again = RunningMarginConnector(2)
    again.load_state_dict(connector.state_dict())
    connector.train()(maps)
    again(maps)
    assert_close(again.margin, connector.margin)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_running_margin_in_half_precision(dtype):
    connector = RunningMarginConnector(2)
    maps = torch.full((1, 2, 300, 300), -1.5, dtype=dtype)
    out = connector(maps)
    assert out.dtype == dtype
    assert_close(out, -torch.ones_like(out))
    assert_close(connector.margin, torch.tensor([-1.5, -1.5]))


def test_running_margin_does_not_depend_on_the_magnitude():
    maps = torch.randn(2, 3, 8, 8)
    small, large = (RunningMarginConnector(3)(scale * maps) for scale in (1.0, 300.0))
    assert_close(small, large)
    zeros = torch.zeros(2, 3, 8, 8)
    assert torch.equal(RunningMarginConnector(3)(zeros), zeros)


def test_running_margin_is_one_on_all_processes(monkeypatch):
    mine, other = torch.randn(2, 3, 4, 6), torch.randn(3, 3, 4, 6)
    whole, sent = RunningMarginConnector(3), []
    whole(torch.cat([mine, other]))
    monkeypatch.setattr('kd_ext.connectors.margins.all_reduce', sent.append)
    RunningMarginConnector(3)(other)
    monkeypatch.setattr('kd_ext.connectors.margins.all_reduce', lambda seen: seen.add_(sent[0]))
    part = RunningMarginConnector(3)
    part(mine)
    for key, value in whole.state_dict().items():
        assert_close(part.state_dict()[key], value)
