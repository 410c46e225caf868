import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from torch.testing import assert_close

from kd_ext.ops.deformable_attention import ms_deform_attn_backward, ms_deform_attn_forward
from kd_ext.ops.operators import OPS

SHAPES = torch.tensor([[4, 6], [2, 3]])
STARTS = torch.tensor([0, 24])


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return draw(2, 30, 2, 4), draw(2, 5, 2, 2, 3, 2), draw(2, 5, 2, 2, 3)


def test_it_stands_in():
    assert OPS['ms_deform_attn_forward'] is ms_deform_attn_forward
    assert OPS['ms_deform_attn_backward'] is ms_deform_attn_backward


def test_a_place_between_cells_by_hand():
    # one level of 1 x 2 cells with values 1 and 3; x = 0.5 lies in the middle
    value = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    place = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2)
    weight = torch.full((1, 1, 1, 1, 1), 10.0)
    found = ms_deform_attn_forward(value, torch.tensor([[1, 2]]), torch.tensor([0]), place, weight, 64)
    assert_close(found, torch.full((1, 1, 1), 20.0))


def test_value_and_gradients_of_mmcvs_own_form(inputs):
    leaves = [one.clone().requires_grad_() for one in inputs]
    value, locations, weights = leaves
    wanted = multi_scale_deformable_attn_pytorch(value, SHAPES, locations, weights)
    assert_close(ms_deform_attn_forward(inputs[0], SHAPES, STARTS, *inputs[1:], 64), wanted.detach())
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted.backward(slope)
    grads = [torch.empty_like(one) for one in inputs]
    with torch.no_grad():
        ms_deform_attn_backward(inputs[0], SHAPES, STARTS, *inputs[1:], slope, *grads, 64)
    assert_close(grads, [leaf.grad for leaf in leaves])
