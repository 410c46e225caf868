"""Losses compute in fp32, whatever autocast or half precision is around."""

import functools

import torch


def upcast(value):
    """fp16 and bf16 tensors become fp32; anything else stays as it is."""
    if isinstance(value, torch.Tensor) and value.dtype in (torch.float16,
                                                           torch.bfloat16):
        return value.float()
    if isinstance(value, (tuple, list)):
        return type(value)(upcast(item) for item in value)
    return value


def full_precision(function):
    """Runs ``function`` outside autocast, on upcast positional tensors."""

    @functools.wraps(function)
    def wrapper(first, *args, **kwargs):
        sample = first[0] if isinstance(first, (tuple, list)) else first
        with torch.autocast(sample.device.type, enabled=False):
            return function(upcast(first), *upcast(args), **kwargs)

    return wrapper
