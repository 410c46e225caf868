"""The sigmoid focal loss with the signatures of ``mmcv._ext``, whose compiled form exists on GPUs alone.

N predictions of K classes. ``target`` (N,) is the class, or K for none. Where 1 - p or p is below the smallest
float32, the logarithm is cut off as in the compiled kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes -alpha (1 - p)^gamma log p for the target class, and -(1 - alpha) p^gamma log(1 - p) for the others.

    p is the sigmoid of ``input`` (N, K); ``weight`` (K,) multiplies the rows of a target, if it is not empty.
    """
    p, hit = input.sigmoid(), _one_hot(target, input)
    positive = alpha * (1 - p) ** gamma * p.clamp(min=TINY).log()
    negative = (1 - alpha) * p**gamma * (1 - p).clamp(min=TINY).log()
    output.copy_(-torch.where(hit, positive, negative) * _rows(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of :func:`sigmoid_focal_loss_forward` by ``input``."""
    p, hit = input.sigmoid(), _one_hot(target, input)
    positive = alpha * (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=TINY).log())
    negative = (1 - alpha) * p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=TINY).log() - p)
    grad_input.copy_(-torch.where(hit, positive, negative) * _rows(weight, target))


def _one_hot(target: Tensor, like: Tensor) -> Tensor:
    return target[:, None] == torch.arange(like.size(1), device=like.device)


def _rows(weight: Tensor, target: Tensor) -> Tensor | float:
    return weight[target][:, None] if weight.numel() else 1.0
