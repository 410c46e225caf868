"""Splits an entry of ``distill=`` into loss and settings, and builds the loss."""

from __future__ import annotations

from logging import WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_ext.build.modules import build_module, naming, shapes
from kd_ext.errors import value_error
from kd_ext.losses.protocol import LossTraits, describe_loss

# settings that only one kind of tap gives a meaning
OF_REGIONS = ('stage', 'class_means', 'allow_class_means_mismatch')
OF_MAPS = ('level_weights', 'teacher_connector')
WEIGHTS = ('schedule', 'balance')
SETTINGS = ('at', 'teacher', 'levels', 'connector', *WEIGHTS, *OF_REGIONS, *OF_MAPS)
# MMEngine marks entries that come from another package's config
SCOPE = '_scope_'


def split_entry(name: str, cfg: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits an entry into the config of its loss and the settings of the term.

    An entry is flat, ``dict(type=, <arguments of the loss>, <settings>)``, or holds its loss in a dict,
    ``dict(loss=dict(type=, <arguments>), <settings>)``. In the second form arguments and settings may share names.

    Returns:
        The config of the loss, and the settings.

    Raises:
        ValueError: The name or the entry is invalid.
    """
    if (
        not isinstance(name, str)
        or 'loss' in name
        or not name.replace('-', '_').isidentifier()
        or hasattr(nn.ModuleDict(), name)
    ):
        rule = "made of letters, digits and _, no attribute of torch modules, without 'loss' in it"
        remedy = (
            'It becomes the log key distill.loss_<name>, which MMEngine adds to the total because it contains "loss", '
            'and distill.share_<name>, which is no loss.'
        )
        raise value_error('a name in distill', rule, repr(name), remedy)
    nested = isinstance(cfg, dict) and isinstance(cfg.get('loss'), dict) and cfg['loss'].get('type') is not None
    if not nested and (not isinstance(cfg, dict) or cfg.get('type') is None):
        raise value_error(f'distill.{name}', 'a dict with type and at', repr(cfg))
    if 'at' not in cfg:
        remedy = "Say at='neck', at='backbone', at='embedding', at='logits' or at='<module path>'."
        raise value_error(f'distill.{name}', 'told where to read features', 'no at=', remedy)
    settings = {key: cfg[key] for key in SETTINGS if key in cfg}
    if not nested:
        return {key: cfg[key] for key in cfg if key not in SETTINGS}, settings
    stray = [key for key in cfg if key not in (*SETTINGS, 'loss', SCOPE)]
    if stray:
        raise value_error(
            f'distill.{name}',
            f'made of loss= and {", ".join(SETTINGS)}',
            f'{", ".join(stray)} beside loss=',
            'Arguments of the loss go into loss=dict(type=..., ...), or leave out loss= and write type= beside at=.',
        )
    return {**{key: cfg[key] for key in (SCOPE,) if key in cfg}, **cfg['loss']}, settings


def build_loss(name: str, cfg: dict[str, Any]) -> tuple[nn.Module, LossTraits]:
    """Builds a loss from a registry (kd_ext, mmrazor or any other) and reads what it needs.

    Raises:
        ValueError: The type or an argument is unknown, or the object is not a distillation loss.
    """
    loss = build_module(f'distill.{name}', cfg, _loss_names())
    traits = describe_loss(loss, f'distill.{name}')
    if traits.teacher is None and not traits.asks('class_means'):
        print_log(f'distill.{name}: {traits.call} takes labels and nothing of the teacher', 'current', WARNING)
    return loss, traits


def run_loss(name: str, loss: nn.Module, *features: Any, **named: Any) -> Tensor | dict[str, Tensor]:
    """Calls a loss on features that may not suit it.

    Raises:
        ValueError: The loss failed with an error that is no message of kd_ext, or returned something else than
            scalars.
    """
    with naming(f'distill.{name}', f'read where there is what {type(loss).__name__} takes', features):
        value = loss(*features, **named)
    values = list(value.values()) if isinstance(value, dict) else [value]
    if not values or not all(isinstance(one, torch.Tensor) and one.dim() == 0 for one in values):
        rule = 'a loss that gives a scalar, or a dict of them'
        raise value_error(f'distill.{name}', rule, f'{type(loss).__name__}, which gives {shapes(values)}')
    return value


def set_up(place: str, loss: nn.Module, traits: LossTraits, **facts: Any) -> None:
    """Calls the ``setup`` of a loss, if it has one; raises a ``ValueError`` if it needs an unknown fact."""
    missing = [name for name, needed in traits.setup.items() if needed and name not in facts]
    if missing:
        rule = f'a place where {", ".join(missing)} is known, which {type(loss).__name__} needs'
        remedy = "Losses of regions go with at='embedding' and at='logits', those of feature maps with all others."
        raise value_error(place, rule, f'one of {", ".join(facts)}', remedy)
    if traits.setup:
        setup: Any = loss.setup
        setup(**{name: facts[name] for name in traits.setup if name in facts})


def _loss_names() -> list[str]:
    import mmrazor.models.losses as razor

    import kd_ext.losses as own

    return [f'kd_ext.{name}' for name in own.__all__ if name.endswith('Loss')] + [
        f'mmrazor.{name}' for name in razor.__all__
    ]
