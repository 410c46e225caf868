"""How losses compute: in fp32 whatever surrounds them; and hand-written gradients, which are differentiable once."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, TypeVar

import torch
from torch import Tensor

from kd_ext.errors import expected

HALVES = (torch.float16, torch.bfloat16)
Function = TypeVar('Function', bound=Callable[..., Any])


def _convert(value: Any, to_dtype: Callable[[Tensor], Tensor]) -> Any:
    """``to_dtype`` of a tensor, or of each in a tuple or list; other values stay as they are."""
    if isinstance(value, Tensor):
        return to_dtype(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_convert(item, to_dtype) for item in value)
    return value


def upcast(value: Any) -> Any:
    """fp16 and bf16 tensors become fp32; everything else stays as it is."""
    return _convert(value, lambda tensor: tensor.float() if tensor.dtype in HALVES else tensor)


def full_precision(function: Function) -> Function:
    """Runs ``function`` outside autocast, with all tensors in the precision of its first argument, the student's.

    fp64 stays; everything else becomes fp32.
    """
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        sample = args[0] if args else kwargs.get(first)
        if isinstance(sample, (tuple, list)) and sample:
            sample = sample[0]
        if not isinstance(sample, Tensor) or not sample.is_floating_point():
            return function(*args, **kwargs)  # which refuses it
        dtype = torch.float32 if sample.dtype in HALVES else sample.dtype

        def convert(value: Any) -> Any:
            return _convert(value, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)

        with torch.autocast(sample.device.type, enabled=False):
            return function(*convert(args), **{key: convert(value) for key, value in kwargs.items()})

    return wrapper  # type: ignore[return-value]  # the signature is that of the wrapped function


class _NoSecondDerivative(torch.autograd.Function):
    """A gradient as it is; differentiating it raises."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        name, rule = 'a loss with a hand-written gradient (CKA, Lipschitz)', 'differentiated once'
        remedy = 'Leave its term out of what is differentiated twice.'
        raise RuntimeError(expected(name, rule, 'a gradient of its gradient (create_graph=True)', remedy))


def differentiable_once(backward: Callable[..., tuple]) -> Callable[..., tuple]:
    """For the ``backward`` of an autograd function: a second derivative raises.

    torch's ``once_differentiable`` does so only if the incoming gradient has a graph. Otherwise it returns a gradient
    without one, and a penalty on it silently teaches nothing.
    """

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Tensor) -> tuple:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        anchor = torch.zeros((), requires_grad=True)
        return tuple(None if one is None else _NoSecondDerivative.apply(anchor, one) for one in found)

    return wrapper
