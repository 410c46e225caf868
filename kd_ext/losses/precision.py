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
        sample = first
        if isinstance(first, (tuple, list)) and first:
            sample = first[0]
        # what is no tensor is for ``function`` to refuse
        device = getattr(sample, 'device', torch.device('cpu'))
        with torch.autocast(device.type, enabled=False):
            return function(upcast(first), *upcast(args), **kwargs)

    return wrapper
