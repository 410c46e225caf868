"""Builds modules from configs, with errors that name the setting at fault."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from typing import Any, Collection, Sequence

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from kd_ext.errors import explaining, near_matches, value_error
from kd_ext.registry import MODELS

# errors of modules that get unsuitable inputs
FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(NotImplementedError, RuntimeError, TypeError, ValueError),
)


def build_module(place: str, cfg: Any, known: Sequence[str] = (), **facts: Any) -> nn.Module:
    """Builds a module from a registry: kd_ext, mmrazor or any other.

    Args:
        place: The config's place, for messages.
        cfg: With ``type``.
        known: Types that the message suggests.
        facts: Arguments to add to the config's.

    Raises:
        ValueError: The type or an argument is unknown, or the object is not a torch module.
    """
    if not isinstance(cfg, dict) or cfg.get('type') is None:
        raise value_error(place, 'a dict with type', repr(cfg))
    with DefaultScope.overwrite_default_scope('kd_ext'):
        kind = _find(cfg['type'])
        if kind is None:
            near = near_matches(cfg['type'], known) if known else ''
            raise value_error(f'{place}.type', 'registered', repr(cfg['type']), near)
        with explaining(place, f'arguments of {kind.__name__}{_signature(kind)}'):
            module = MODELS.build(ConfigDict({**cfg, **facts}))
    if not isinstance(module, nn.Module):
        raise value_error(f'{place}.type', 'a torch module', f'{kind.__name__}, which is none')
    return module


def arguments(cfg: Any) -> Collection[str]:
    """Names of the parameters that the ``type`` of a config takes; none if ``cfg`` is not a config."""
    kind = _find(cfg.get('type')) if isinstance(cfg, dict) else None
    return () if kind is None else inspect.signature(kind).parameters


def _find(kind: Any) -> type | None:
    if isinstance(kind, str):
        try:
            kind = MODELS.get(kind)
        except Exception:  # not a name, or of a scope that cannot be imported
            return None
    # MMEngine also resolves dotted paths to objects that are not classes
    return kind if isinstance(kind, type) else None


def _signature(kind: type) -> Any:
    try:
        return inspect.signature(kind)
    except ValueError:  # implemented in C
        return '(...)'


def naming(
    place: str, rule: str, features: Any, remedy: str = 'Read at another place, or correct its arguments.'
) -> AbstractContextManager[None]:
    """Context that turns an error of torch or Python into a ``ValueError`` with the shapes of ``features``."""
    return explaining(place, rule, f'{shapes(features)} ({{}})', remedy, FAULTS)


def shapes(values: Any) -> str:
    """``(2, 8, 4, 4) and (2, 8, 4, 4)``; objects that are not tensors by their type."""
    return ' and '.join(
        str(tuple(value.shape))
        if isinstance(value, torch.Tensor)
        else f'[{shapes(value)}]'
        if isinstance(value, (tuple, list))
        else type(value).__name__
        for value in values
    )
