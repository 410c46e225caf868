import pytest
import torch
from torch import nn

from kd_ext.connectors import Connector


@pytest.mark.parametrize(
    ('student', 'teacher', 'kind'),
    [
        ((2, 4, 8, 8), (2, 4, 8, 8), type(None)),
        ((2, 4, 8, 8), (2, 6, 8, 8), nn.Conv2d),
        ((5, 4), (5, 6), nn.Linear),
        ((2, 5, 4), (2, 5, 6), nn.Linear),
    ],
)
def test_projector_where_widths_differ(student, teacher, kind):
    connector = Connector.between(student, teacher)
    assert type(connector.projector) is kind
    out = connector(torch.rand(student), torch.rand(teacher))
    assert out.shape == teacher


def test_resize_where_sizes_differ():
    connector = Connector.between((1, 2, 8, 8), (1, 2, 4, 6))
    maps = torch.rand(1, 2, 8, 8)
    out = connector(maps, torch.rand(1, 2, 4, 6))
    torch.testing.assert_close(out, nn.functional.interpolate(maps, (4, 6), mode='bilinear'))
    assert connector.describe((1, 2, 8, 8), (1, 2, 4, 6)) == ('resized', 0)


def test_same_shape_passes_through():
    maps = torch.rand(1, 2, 4, 4)
    assert Connector()(maps, torch.rand(1, 2, 4, 4)) is maps


def test_own_projector():
    connector = Connector.between(
        (2, 4, 8, 8), (2, 4, 8, 8), dict(type='mmrazor.ConvModuleConnector', norm_cfg=dict(type='BN'), act_cfg=None)
    )
    assert connector.projector is not None
    assert connector(torch.rand(2, 4, 8, 8), torch.rand(2, 4, 8, 8)).shape == (2, 4, 8, 8)


@pytest.mark.parametrize(('student', 'teacher'), [((2, 4, 8, 8), (2, 4)), ((4,), (4,)), ((1, 2, 3, 4, 5),) * 2])
def test_shapes_that_cannot_be_connected(student, teacher):
    with pytest.raises(ValueError, match='of 2, 3 or 4 axes'):
        Connector.between(student, teacher)
