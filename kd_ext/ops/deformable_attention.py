"""Multi-scale deformable attention with the signatures of ``mmcv._ext``, which mmcv calls on GPUs.

On a CPU mmcv has a form in torch of its own; this is the same form, with its gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def ms_deform_attn_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, im2col_step: int
) -> Tensor:
    """Weighted sum of ``value`` (B, keys, heads, D) at sampled places, (B, queries, heads D).

    Args:
        value: Features of all levels in one row.
        shapes: (H, W) of each level.
        starts: Index of each level's first key; follows from ``shapes``.
        locations: (B, queries, heads, levels, points, 2), x and y in [0, 1].
        weights: (B, queries, heads, levels, points).
        im2col_step: Of the compiled form alone.
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # it imports mmcv._ext

    # whole numbers, read once: the form reads each of them again
    return multi_scale_deformable_attn_pytorch(value, shapes.cpu(), locations, weights)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    im2col_step: int,
) -> None:
    """Writes the gradients of :func:`ms_deform_attn_forward`."""
    leaves = [one.detach().requires_grad_() for one in (value, locations, weights)]
    with torch.enable_grad():
        output: Any = ms_deform_attn_forward(leaves[0], shapes, starts, leaves[1], leaves[2], im2col_step)
    grads = torch.autograd.grad(output, leaves, grad_output)
    for written, grad in zip((grad_value, grad_locations, grad_weights), grads):
        written.copy_(grad)
