"""Builds modules from configs, with errors that name the setting at fault."""

import contextlib
import inspect

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from kd_ext.errors import is_ours, near_matches, value_error
from kd_ext.registry import MODELS

# errors of modules that get unsuitable inputs
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
    """Builds a module from a registry: kd_ext, mmrazor or any other.

    Args:
        place (str): The config's place, for messages.
        cfg (dict): With ``type``.
        known (Sequence[str]): Types that the message suggests.
        facts: Arguments to add to the config's.

    Raises:
        ValueError: The type or an argument is unknown, or the object is not a torch module.
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
    """Names of the parameters that the ``type`` of a config takes; none if ``cfg`` is not a config."""
    kind = _find(cfg.get('type')) if isinstance(cfg, dict) else None
    return () if kind is None else inspect.signature(kind).parameters


def _find(kind):
    if isinstance(kind, str):
        try:
            kind = MODELS.get(kind)
        except Exception:  # not a name, or of a scope that cannot be imported
            return None
    # MMEngine also resolves dotted paths to objects that are not classes
    return kind if isinstance(kind, type) else None


def _signature(kind):
    try:
        return inspect.signature(kind)
    except ValueError:  # implemented in C
        return '(...)'


@contextlib.contextmanager
def naming(place, rule, features, remedy='Read at another place, or correct its arguments.'):
    """Context that turns an error of torch or Python into a message with the shapes of ``features``.

    Raises:
        ValueError: In place of any of ``FAULTS``; messages of kd_ext and CUDA's out-of-memory error pass
            unchanged.
    """
    try:
        yield
    except FAULTS as error:
        if is_ours(error) or isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise value_error(place, rule, f'{shapes(features)} ({type(error).__name__}: {error})', remedy) from error


def shapes(values):
    """``(2, 8, 4, 4) and (2, 8, 4, 4)``; objects that are not tensors by their type."""
    return ' and '.join(
        str(tuple(value.shape))
        if isinstance(value, torch.Tensor)
        else f'[{shapes(value)}]'
        if isinstance(value, (tuple, list))
        else type(value).__name__
        for value in values
    )
