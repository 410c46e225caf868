"""RoIAlign, forward and backward, against the compiled operator, and by hand."""

import math

import pytest
import torch

from kd_ext.ops import roi_align as ours
from tests.helpers.without_ops import compiled

NASTY = {
    'none': [],
    'without area': [[0, 30.0, 40.0, 30.0, 40.0], [1, 8.0, 8.0, 8.0, 80.0]],
    'outside the image': [[0, -900.0, -900.0, -800.0, -850.0], [1, 999.0, 5.0, 1200.0, 90.0]],
    'partly outside': [[0, -40.0, -40.0, 60.0, 50.0], [1, 100.0, 90.0, 400.0, 300.0]],
    'the whole image and a pixel': [[1, 0.0, 0.0, 248.0, 160.0], [0, 16.0, 16.0, 17.0, 17.0]],
    'on the border': [[0, -8.0, -8.0, 0.0, 0.0], [1, 248.0, 160.0, 260.0, 170.0], [0, 240.0, 150.0, 248.0, 160.0]],
}


def random_regions(count, generator):
    corner = torch.rand(count, 2, generator=generator) * 300 - 50
    size = torch.rand(count, 2, generator=generator) ** 2 * 200
    image = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + size], 1)


def align(module, maps, rois, grad, mode, **grid):
    """Output and gradient."""
    out = maps.new_zeros(len(rois), maps.size(1), grid['aligned_height'], grid['aligned_width'])
    argmax = [torch.zeros_like(out) if mode == 0 else out.new_zeros(0) for _ in 'yx']
    module.roi_align_forward(maps, rois, out, *argmax, pool_mode=mode, **grid)
    grad_maps = torch.zeros_like(maps)
    module.roi_align_backward(grad, rois, *argmax, grad_maps, pool_mode=mode, **grid)
    return out, *argmax, grad_maps


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 2])
@pytest.mark.parametrize('mode', [0, 1], ids=['max', 'avg'])
class TestAgainstTheCompiledOne:
    def check(self, rois, mode, ratio, aligned, dtype, generator, scale=1 / 8):
        maps = torch.randn(2, 3, 20, 31, generator=generator, dtype=dtype)
        grad = torch.randn(len(rois), 3, 7, 5, generator=generator, dtype=dtype)
        grid = dict(
            aligned_height=7, aligned_width=5, spatial_scale=scale, sampling_ratio=ratio, aligned=aligned, mode=mode
        )
        wanted, found = (align(module, maps, rois.to(dtype), grad, **grid) for module in (compiled(), ours))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)

    def test_random_regions(self, mode, ratio, aligned, dtype, generator):
        self.check(random_regions(50, generator), mode, ratio, aligned, dtype, generator)
        self.check(random_regions(50, generator), mode, ratio, aligned, dtype, generator, scale=0.0617)

    @pytest.mark.parametrize('name', NASTY)
    def test_nasty_regions(self, mode, ratio, aligned, dtype, name, generator):
        self.check(torch.tensor(NASTY[name]).view(-1, 5), mode, ratio, aligned, dtype, generator)


GRID = dict(aligned_height=1, aligned_width=2, spatial_scale=1.0, sampling_ratio=1, aligned=True)


def test_by_hand():
    maps = torch.arange(12.0).view(1, 1, 3, 4)  # 4 * row + column
    rois = torch.tensor([[0.0, 0.5, 0.5, 2.5, 2.5]])
    out, *_, grad = align(ours, maps, rois, torch.ones(1, 1, 1, 2), 1, **GRID)
    # bins are centred on row 1, columns 0.5 and 1.5
    assert out.flatten().tolist() == [4.5, 5.5]
    assert grad.flatten().tolist() == [0, 0, 0, 0, 0.5, 1, 0.5, 0, 0, 0, 0, 0]


def test_negative_regions_are_refused_where_the_compiled_one_refuses():
    maps, rois = torch.zeros(1, 1, 3, 4), torch.tensor([[0.0, 2.5, 0.5, 0.5, 2.5]])
    for module in (compiled(), ours):
        with pytest.raises(RuntimeError, match='regions of roi_align|ROIs in ROIAlign'):
            align(module, maps, rois, torch.ones(1, 1, 1, 2), 1, **GRID)


def test_a_map_without_numbers_spoils_no_other_region():
    maps = torch.zeros(1, 1, 8, 8)
    maps[..., 5:, 5:] = math.nan
    rois = torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0], [0.0, 5.0, 5.0, 8.0, 8.0]])
    out, *_ = align(ours, maps, rois, torch.ones(2, 1, 1, 2), 1, **GRID)
    assert out[0].isfinite().all() and out[1].isnan().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', [0, 1])
def test_half_precision(mode, dtype, generator):
    maps = torch.randn(2, 3, 20, 31, generator=generator).to(dtype)
    rois = random_regions(9, generator).to(dtype)
    grad = torch.randn(9, 3, 1, 2, generator=generator).to(dtype)
    low, full = (
        align(ours, *(one.to(kind) for one in (maps, rois, grad)), mode, **GRID) for kind in (dtype, torch.float32)
    )
    assert all(one.dtype == dtype for one in low)
    torch.testing.assert_close([one.float() for one in low], list(full), atol=0.05, rtol=0.02)
