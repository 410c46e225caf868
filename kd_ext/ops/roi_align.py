"""RoIAlign with the signatures of ``mmcv._ext``.

N maps of C channels, R regions (map, x1, y1, x2, y2) in pixels of the image, P x Q bins per region. A bin is the mean
or the maximum of bilinear samples on a grid of G x K points.
"""

from __future__ import annotations

from typing import Any, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_ext.errors import expected

EMPTY_MAX = -10000.0  # the maximum of a bin without samples


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, *, pool_mode: int, **grid: Any
) -> None:
    """Writes the mean (``pool_mode`` 1) or the maximum (0) of each bin to ``output`` (R, C, P, Q).

    Args:
        input: feature maps (N, C, H, W).
        rois: regions (R, 5).
        output: receives the bins.
        argmax_y: receives the height of each maximum in the map, -1 where there is none.
        argmax_x: the same for the width.
        pool_mode: 0 or 1.
        grid: the arguments of :func:`_points`.

    Raises:
        RuntimeError: If a region is negative in width or height and ``aligned``; the compiled operator raises it too.
    """
    rows = input.detach().permute(0, 2, 3, 1).flatten(0, 2).to(_precise(input))
    rois = rois.detach().to(rows)
    if pool_mode == 1:
        output.zero_()
        order, bags = _bags(rois, input.shape, **grid)
        output[order] = _maps(F.embedding_bag(weight=rows, **bags), output).to(output)
        return
    for held, value in ((output, EMPTY_MAX), (argmax_y, -1), (argmax_x, -1)):
        held.fill_(value)
    for chosen, y, x in _points(rois, **grid):
        index, weight = _corners(rois[chosen, 0].view(-1, 1, 1, 1, 1), y, x, input.shape)
        values = F.embedding_bag(index.view(-1, 4), rows, per_sample_weights=weight.view(-1, 4), mode='sum')
        # (R', P, Q, G * K, C); NaN is above nothing, so it is never the maximum
        values = values.view(*index.shape[:3], -1, values.size(1))
        largest, where = values.masked_fill(values.isnan(), float('-inf')).max(3)
        places = (one.expand(index.shape[:-1]).flatten(3).gather(3, where) for one in (y, x))
        found = _maps(largest > EMPTY_MAX, output)
        for held, at_most in zip((output, argmax_y, argmax_x), (largest, *places)):
            held[chosen] = torch.where(found, _maps(at_most, output).to(held), held[chosen])


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    pool_mode: int,
    **grid: Any,
) -> None:
    """Writes to ``grad_input`` (N, C, H, W) the gradient that ``grad_output`` (R, C, P, Q) means for the maps."""
    kind, shape = _precise(grad_input), grad_input.shape
    rois = rois.detach().to(kind)
    if pool_mode == 1:
        # sampling is linear in the maps: its gradient at zero is its gradient anywhere
        zeros = rois.new_zeros(shape[0] * shape[2] * shape[3], shape[1], requires_grad=True)
        order, bags = _bags(rois, shape, **grid)
        with torch.enable_grad():
            means = F.embedding_bag(weight=zeros, **bags)
        wanted = grad_output[order].to(kind).permute(0, 2, 3, 1).reshape_as(means)
        (grad,) = torch.autograd.grad(means, zeros, wanted)
        grad_input.copy_(grad.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2))
        return
    channels = torch.arange(shape[1], device=rois.device)
    planes = (rois[:, :1] * shape[1] + channels)[:, :, None, None]
    index, weight = _corners(planes, argmax_y.to(kind), argmax_x.to(kind), shape)
    share = grad_output[..., None].to(kind) * weight * (argmax_y != -1)[..., None]
    grad_input.view(-1).index_add_(0, index.flatten(), share.flatten().to(grad_input))


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _maps(bins: Tensor, like: Tensor) -> Tensor:
    """(R' * P * Q, C) or (R', P, Q, C) -> (R', C, P, Q)."""
    return bins.view(-1, *like.shape[2:], like.size(1)).permute(0, 3, 1, 2)


def _points(
    rois: Tensor, aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields, for regions whose grids have the same size: their indices, y (R', P, 1, G, 1) and x (R', 1, Q, 1, K).

    The positions are in pixels of the map. ``sampling_ratio`` is G and K; 0 means one point per pixel.
    """
    scale = torch.tensor(spatial_scale, dtype=torch.float32).item()  # the precision of the compiled operator
    start, end = (rois[:, columns] * scale - 0.5 * aligned for columns in ([2, 1], [4, 3]))
    size = end - start
    if aligned and (size < 0).any():
        raise RuntimeError(
            expected(
                'the regions of roi_align with aligned=True', 'of a width and a height of 0 or more', size.min().item()
            )
        )
    step = (size if aligned else size.clamp(min=1)) / rois.new_tensor([aligned_height, aligned_width])
    grid = step.float().ceil().long().clamp(min=0)
    if sampling_ratio > 0:
        grid.fill_(sampling_ratio)
    for pair in grid.unique(dim=0):
        chosen = (grid == pair).all(1).nonzero()[:, 0]
        if pair.prod() == 0:
            continue
        y, x = (
            start[chosen, axis, None, None]
            + torch.arange(bins, device=rois.device)[:, None] * step[chosen, axis, None, None]
            + (torch.arange(int(count), device=rois.device) + 0.5) * step[chosen, axis, None, None] / int(count)
            for axis, (bins, count) in enumerate(zip((aligned_height, aligned_width), pair))
        )
        yield chosen, y[:, :, None, :, None], x[:, None, :, None, :]


def _corners(plane: Tensor, y: Tensor, x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The four pixels around each point, counted through all planes, and their weights: (..., 4) each.

    Points more than a pixel outside of the map have weight 0.
    """
    height, width = shape[2:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    (top, bottom, down), (left, right, along) = _neighbours(y, height), _neighbours(x, width)
    index = torch.stack([row * width + column for row in (top, bottom) for column in (left, right)], -1)
    weight = torch.stack([a * b for a in (1 - down, down) for b in (1 - along, along)], -1)
    index = plane.long()[..., None] * (height * width) + index
    return index, torch.where(inside[..., None], weight, 0.0)


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a position, and how far it is from the first."""
    position = position.nan_to_num(0).clamp(0, size - 1)
    low = position.long()
    return low, (low + 1).clamp(max=size - 1), position - low


def _bags(rois: Tensor, shape: torch.Size, **grid: Any) -> tuple[Tensor, dict[str, Any]]:
    """The order of the regions, and their bins as arguments of ``embedding_bag`` on the pixels (N * H * W, C)."""
    none = rois.new_empty(0)
    parts = [(none.long(), none.long(), none, none.long())]
    for chosen, y, x in _points(rois, **grid):
        index, weight = _corners(rois[chosen, 0].view(-1, 1, 1, 1, 1), y, x, shape)
        bins, points = index.shape[:3].numel(), index.shape[3:].numel()
        # of G * K points with 4 pixels each
        lengths = index.new_full((bins,), points)
        parts.append((chosen, index.flatten(), weight.flatten() * (4 / points), lengths))
    order, index, weight, lengths = (torch.cat(held) for held in zip(*parts))
    offsets = lengths.cumsum(0) - lengths
    return order, dict(input=index, offsets=offsets, per_sample_weights=weight, mode='sum')
