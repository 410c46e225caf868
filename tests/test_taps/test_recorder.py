import pytest
import torch
from torch import nn

from kd_ext.taps import Recorder


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Linear(2, 2)
        self.ran = []

    def forward(self, inputs, levels=1):
        outs = []
        for _ in range(levels):
            outs.append(self.first(inputs))
        self.ran.append('first')
        out = self.last(outs[0])
        self.ran.append('last')
        return out


def test_records_calls_as_levels():
    model = Model()
    with Recorder(dict(a=model.first)) as seen:
        model(torch.ones(1, 2), levels=3)
    assert len(seen.levels('a')) == 3 and seen.counts() == dict(a=3)
    assert model.ran == ['first', 'last']


def test_stops_after_the_calls_asked_for():
    model = Model()
    with Recorder(dict(a=model.first), dict(a=2)) as seen:
        model(torch.ones(1, 2), levels=3)
    assert len(seen.levels('a')) == 2 and model.ran == []


def test_other_errors_pass_and_hooks_go():
    model = Model()
    with pytest.raises(RuntimeError, match='shape'):
        with Recorder(dict(a=model.first)):
            model(torch.ones(1, 5))
    assert not model.first._forward_hooks


def test_nested_outputs_are_flat_and_none_is_left_out():

    class Nest(nn.Module):
        def forward(self, x):
            return (x, [x + 1, None], dict(z=x + 2))

    nest = Nest()
    with Recorder(dict(n=nest)) as seen:
        nest(torch.zeros(1))
    assert [float(x) for x in seen.levels('n')] == [0, 1, 2]


def test_output_without_tensors():

    class Text(nn.Module):
        def forward(self, x):
            return 'text'

    text = Text()
    with pytest.raises(TypeError, match="'t' to be made of tensors"):
        with Recorder(dict(t=text)):
            text(1)


def test_module_that_never_runs():
    with Recorder(dict(a=nn.Linear(1, 1))) as seen:
        pass
    with pytest.raises(RuntimeError, match='no call of its forward'):
        seen.levels('a')


def test_overwritten_output_is_noticed():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    with torch.no_grad(), Recorder(dict(a=model[0])) as seen:
        model(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match='in-place'):
        seen.levels('a')
