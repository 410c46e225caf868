r"""Largest singular values between neighbouring stages, matrix-free.

Shapes: B images, n stages, stage k of C_k channels on H_k x W_k cells; L = h w is the cell count of stage k + 1, P
(B, C_k, L) stage k pooled to it and F (B, C_{k+1}, L) stage k + 1 itself; M = P F^T / L is never formed.

The iterates u of a power iteration on M M^T are kept, each without its part along those before, and sigma is the
largest singular value of M on their span (Rayleigh-Ritz, which makes it a Lanczos method). It is never less exact
than the last iterate and costs no product more: 8 steps do what 30 plain ones do where the second singular value
is 0.97 of the first. With u, v held constant sigma = u^T M v, and its gradient is :math:`v\,(P^Tu)^T/L` in F and
:math:`u\,(F^Tv)^T/L` in P.

The gradient is as exact as u and v are, which converge later than sigma does. With r the residual
:math:`M M^T u - \sigma^2 u`, the sine of the angle between u and the true vector is at most
:math:`\lVert r\rVert / (\sigma_1^2 - \sigma_2^2)`. The iteration knows all three, and stops where the quotient
is below ``ANGLE`` rounding errors.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_ext.losses.precision import differentiable_once
from kd_ext.losses.waiting import free_to_read

EPS = 1e-6
# angle of the singular vectors at which the iteration stops, in rounding errors: 1e-4 in fp32
ANGLE = 1000
SQUARINGS = 18  # of a Gram matrix, for its power 2**18
MOST = 200  # steps where no number of them is given


class _Triplet(NamedTuple):
    """Top singular value and what its gradient is made of, rows of (B, 1).

    ``left`` and ``right`` are u and v; ``low`` is F^T v / L, the gradient of P beside u, and ``high`` is P^T u /
    L, the gradient of F beside v.
    """

    sigma: Tensor
    left: Tensor
    right: Tensor
    low: Tensor
    high: Tensor


def _pool(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pool to ``size``, (B, C, L)."""
    batch, channels, height, width = maps.shape
    if (height, width) != (2 * size[0], 2 * size[1]):
        return F.adaptive_avg_pool2d(maps, (size[0], size[1])).flatten(2)
    # a bilinear resize to half is the mean of 2 x 2 cells; on one tall map torch does it two to four times faster
    # than the pool on a CPU
    tall = F.interpolate(
        maps.reshape(batch, 1, channels * height, width),
        (channels * size[0], size[1]),
        mode='bilinear',
        align_corners=False,
    )
    return tall.view(batch, channels, -1)


def _unpool(cells: Tensor, size: Sequence[int], maps_size: Sequence[int]) -> Tensor:
    """Adjoint of the pool on one channel, (B, 1, L) -> (B, 1, H W)."""
    with torch.enable_grad():
        maps = cells.new_zeros(len(cells), 1, *maps_size, requires_grad=True)
        pooled = F.adaptive_avg_pool2d(maps, (size[0], size[1]))
    (grad,) = torch.autograd.grad(pooled, maps, cells.view_as(pooled))
    return grad.flatten(2)


def _unit(rows: Tensor, least: float = 0.0) -> Tensor:
    """Rows of length 1; those not longer than ``least`` become exactly 0."""
    norm = rows.norm(dim=-1, keepdim=True)
    return rows * torch.where(norm > least, norm, torch.inf).reciprocal()


def _start(maps: Tensor) -> Tensor:
    """The first u, (B, 1, C_k): all ones, which features after a ReLU are near to, plus an irregular part, to which no
    symmetry of the features is orthogonal."""
    index = torch.arange(1, maps.shape[1] + 1, device=maps.device)
    return _unit((1 + index.to(maps.dtype).sin()).expand(len(maps), 1, -1))


def _new_part(rows: Tensor, basis: Tensor) -> Tensor:
    """Rows of length 1 without their part along ``basis``: as long as what is new in them, or exactly 0."""
    rows = _unit(rows)
    for _ in range(2):
        rows = rows - (rows @ basis.mT) @ basis
    return rows * (rows.norm(dim=-1, keepdim=True) > 100 * torch.finfo(rows.dtype).eps)


def _gram(images: Tensor) -> Tensor:
    return (images @ images.mT).nan_to_num(0.0, 0.0, 0.0)  # eigh raises on nan


def _ritz(images: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of images images^T, (B, steps), in rising order, and the eigenvector of the last, (B, 1, steps)."""
    values, vectors = torch.linalg.eigh(_gram(images))
    return values, vectors[..., -1][:, None]


def _leading(images: Tensor) -> Tensor:
    """That eigenvector without waiting for a GPU, which ``eigh`` does, from a high power of the Gram matrix.

    As exact as that of ``eigh`` where the eigenvalue is 1e-4 above the next; else a mixture of their vectors.
    """
    power = _gram(images)
    for squared in range(SQUARINGS):
        if squared % 4 == 0:  # keeps it in range
            trace = power.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
            power = power / torch.where(trace > 0, trace, torch.inf)
        power = power @ power
    column = power.diagonal(dim1=-2, dim2=-1).argmax(-1)[:, None, None]
    return _unit(power.take_along_dim(column, 1))


def _converged(images: Tensor, residual: Tensor) -> bool:
    """Whether u is within ``ANGLE`` of the top singular vector in every image; waits for a GPU.

    ``residual`` (B, 1, 1) is the length of M M^T q outside the span, for the last iterate q. Earlier iterates have
    none, so that of u is its share of q times that.
    """
    values, mix = _ritz(images)
    gap = values[:, -1] - values[:, -2]
    return bool((residual[:, 0, 0] * mix[:, 0, -1].abs() <= ANGLE * torch.finfo(gap.dtype).eps * gap).all())


def _power_iteration(pooled: Tensor, maps: Tensor, num_iters: int | None) -> _Triplet:
    """Triplet of M from at most ``num_iters`` products with M and M^T."""
    count = maps.shape[-1]
    # on a GPU with a given number of steps nothing is waited for
    prompt = free_to_read(maps)
    looks = prompt or num_iters is None
    steps: list[tuple[Tensor, ...]] = []
    left = _start(pooled)
    most = min(num_iters or MOST, pooled.shape[1])
    for _ in range(most):
        high = left @ pooled / count
        image = high @ maps.mT  # M^T u
        low = _unit(image) @ maps / count
        steps.append((left, image, low, high))
        lefts, images, lows, highs = (torch.cat(rows, 1) for rows in zip(*steps))
        if len(steps) == most:
            break
        product = low @ pooled.mT  # M M^T u over the length of M^T u
        left = _new_part(product, lefts)
        outside = left.norm(dim=-1, keepdim=True)
        residual = outside * product.norm(dim=-1, keepdim=True) * image.norm(dim=-1, keepdim=True)
        if looks and len(steps) > 1 and _converged(images, residual):
            break
        left = _unit(left)
    mix = _ritz(images)[1] if prompt else _leading(images)
    image = mix @ images
    sigma = image.norm(dim=-1, keepdim=True)
    lengths = images.norm(dim=-1)[:, None]
    low = (mix * lengths / torch.where(sigma > 0, sigma, torch.inf)) @ lows
    return _Triplet(sigma[:, 0, 0], mix @ lefts, _unit(image), low, mix @ highs)


class _StageSigmas(torch.autograd.Function):
    """Top singular values of every pair of neighbouring stages, (n - 1, B).

    Only singular vectors are kept for the backward, no features; a stage's gradient is of rank 2 per image and
    written once.
    """

    @staticmethod
    def forward(ctx: Any, num_iters: int | None, *stages: Tensor) -> Tensor:
        ctx.sizes = [stage.shape[-2:] for stage in stages]
        ctx.triplets = [
            _power_iteration(_pool(low, high.shape[-2:]), high.flatten(2), num_iters)
            for low, high in zip(stages, stages[1:])
        ]
        return torch.stack([triplet.sigma for triplet in ctx.triplets])

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grads: Tensor) -> tuple:
        outers: list[list[tuple[Tensor, Tensor]]] = [[] for _ in ctx.sizes]
        for k, (factor, triplet) in enumerate(zip(grads, ctx.triplets)):
            factor = factor[:, None, None]
            cells = _unpool(triplet.low, ctx.sizes[k + 1], ctx.sizes[k])
            outers[k].append((triplet.left * factor, cells))
            outers[k + 1].append((triplet.right * factor, triplet.high))
        # a backward that is called under autocast runs under autocast
        with torch.autocast(grads.device.type, enabled=False):
            return None, *(
                _sum_of_outers(pairs).unflatten(-1, size) if wanted else None
                for pairs, size, wanted in zip(outers, ctx.sizes, ctx.needs_input_grad[1:])
            )


def _sum_of_outers(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    channels, cells = (torch.cat(rows, 1) for rows in zip(*pairs))
    return channels.mT @ cells


def stage_sigmas(stages: Sequence[Tensor], num_iters: int | None = 10) -> Tensor:
    """Largest singular value of each M_k, (n - 1, B), with its gradient.

    Args:
        stages: n >= 2 features (B, C_k, H_k, W_k).
        num_iters: Steps of the power iteration, at most. On a CPU it stops before where the singular vectors, and so
            the gradient, are exact to about 1e-4 in fp32. Features with a dominant direction (after a ReLU) get
            there within 10 steps. Without one (Gaussian) 10 steps leave sigma 1e-2 and the gradient up to 40% off.
            None goes on until the gradient is exact, for at most 200 steps; on a GPU each then waits for the device.
    """
    return _StageSigmas.apply(num_iters, *stages)
