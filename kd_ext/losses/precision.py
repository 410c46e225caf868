"""Losses compute in fp32, whatever autocast or half precision is around."""

import functools
import inspect

import torch

HALVES = (torch.float16, torch.bfloat16)


def upcast(value):
    """fp16 and bf16 tensors become fp32; anything else stays as it is."""
    if isinstance(value, torch.Tensor) and value.dtype in HALVES:
        return value.float()
    if isinstance(value, (tuple, list)):
        return type(value)(upcast(item) for item in value)
    return value


def _first_tensor(value):
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value if isinstance(value, torch.Tensor) else None


def _in_dtype(value, dtype):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, (tuple, list)):
        return type(value)(_in_dtype(item, dtype) for item in value)
    return value


def full_precision(function):
    """Runs ``function`` outside autocast, on tensors of one precision.

    It is that of the first argument, the student's: fp64 stays, all else is fp32.
    """
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        sample = _first_tensor(args[0] if args else kwargs.get(first))
        if sample is None or not sample.is_floating_point():
            return function(*args, **kwargs)  # which refuses it
        dtype = torch.float32 if sample.dtype in HALVES else sample.dtype
        with torch.autocast(sample.device.type, enabled=False):
            return function(*_in_dtype(args, dtype), **{key: _in_dtype(value, dtype) for key, value in kwargs.items()})

    return wrapper
