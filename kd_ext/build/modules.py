"""Modules of a config, and errors that say which setting they come from."""

import contextlib
import inspect

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from kd_ext.errors import is_ours, near_matches, value_error
from kd_ext.registry import MODELS

# what modules raise that are given something they were not made for
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def build_module(place, cfg, known=(), **facts):
    """Builds a module of kd_ext, mmrazor or any other registry.

    Args:
        place (str): Of the config, for messages.
        cfg (dict): With ``type``.
        known (Sequence[str]): Types to suggest.
        facts: Arguments that are added to those of the config.

    Raises:
        ValueError: Unknown type, unknown argument or no torch module.
    """
    if not isinstance(cfg, dict) or cfg.get('type') is None:
        raise value_error(place, 'a dict with type', repr(cfg))
    with DefaultScope.overwrite_default_scope('kd_ext'):
        kind = _find(cfg['type'])
        if kind is None:
            raise value_error(
                f'{place}.type', 'registered', repr(cfg['type']), near_matches(cfg['type'], known) if known else ''
            )
        try:
            module = MODELS.build(ConfigDict({**cfg, **facts}))
        except Exception as error:
            if is_ours(error):
                raise
            raise value_error(
                place, f'arguments of {kind.__name__}{_signature(kind)}', f'{type(error).__name__}: {error}'
            ) from error
    if not isinstance(module, nn.Module):
        raise value_error(f'{place}.type', 'a torch module', f'{kind.__name__}, which is none')
    return module


def arguments(cfg):
    """Names that the ``type`` of a config takes; none of what is no config."""
    kind = _find(cfg.get('type')) if isinstance(cfg, dict) else None
    return () if kind is None else inspect.signature(kind).parameters


def _find(kind):
    if isinstance(kind, str):
        try:
            kind = MODELS.get(kind)
        except Exception:  # a scope that cannot be imported, or no name
            return None
    # MMEngine takes any path of Python for a name
    return kind if isinstance(kind, type) else None


def _signature(kind):
    try:
        return inspect.signature(kind)
    except ValueError:  # of a class in C
        return '(...)'


@contextlib.contextmanager
def naming(place, rule, features, remedy='Read at another place, or correct its arguments.'):
    """Context whose faults become a message with the shapes of ``features``.

    Raises:
        ValueError: What was raised was no message of ours.
    """
    try:
        yield
    except FAULTS as error:
        if is_ours(error) or isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise value_error(place, rule, f'{shapes(features)} ({type(error).__name__}: {error})', remedy) from error


def shapes(values):
    """``(2, 8, 4, 4) and (2, 8, 4, 4)``; of other things their type."""
    return ' and '.join(
        str(tuple(value.shape))
        if isinstance(value, torch.Tensor)
        else f'[{shapes(value)}]'
        if isinstance(value, (tuple, list))
        else type(value).__name__
        for value in values
    )
