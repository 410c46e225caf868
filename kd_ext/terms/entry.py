"""One entry of ``distill=``, taken apart, and the loss it names."""

import inspect

import torch
from torch import nn

from kd_ext.build.modules import build_module, naming, shapes
from kd_ext.errors import value_error

# settings that one kind of tap alone has a meaning for
OF_REGIONS = ('stage', 'class_means')
OF_MAPS = ('level_weights', 'teacher_connector')
WEIGHTS = ('schedule', 'balance')
SETTINGS = ('at', 'teacher', 'levels', 'connector', *WEIGHTS, *OF_REGIONS, *OF_MAPS)
# what a loss may ask for by name besides the features of both models
BY_NAME = ('labels', 'class_means')


def split_entry(name, cfg):
    """Divides ``dict(type=, <settings>, <arguments of the loss>)``.

    Returns:
        tuple[dict, dict]: The loss config and the settings of the term.

    Raises:
        ValueError: The name or the entry cannot be used.
    """
    if (
        not isinstance(name, str)
        or 'loss' in name
        or not name.replace('-', '_').isidentifier()
        or hasattr(nn.ModuleDict(), name)
    ):
        raise value_error(
            'a name in distill',
            "made of letters, digits and _, no attribute of torch modules, without 'loss' in it",
            repr(name),
            'It becomes the log key distill.loss_<name>, which MMEngine adds '
            'to the total because it contains "loss", and '
            'distill.share_<name>, which is no loss.',
        )
    if not isinstance(cfg, dict) or cfg.get('type') is None:
        raise value_error(f'distill.{name}', 'a dict with type and at', repr(cfg))
    if 'at' not in cfg:
        raise value_error(
            f'distill.{name}',
            'told where to read features',
            'no at=',
            "Say at='neck', at='backbone', at='embedding', at='logits' or at='<module path>'.",
        )
    loss = {key: cfg[key] for key in cfg if key not in SETTINGS}
    return loss, {key: cfg[key] for key in SETTINGS if key in cfg}


def build_loss(name, cfg):
    """Builds a loss of kd_ext, mmrazor or any other registry.

    Raises:
        ValueError: Unknown type, unknown argument or no distillation loss.
    """
    loss = build_module(f'distill.{name}', cfg, _loss_names())
    parameters = _parameters(loss)
    required = [p.name for p in parameters if p.default is p.empty and p.name not in BY_NAME]
    if not parameters or len(required) > 2 or (len(parameters) < 2 and not asks(loss)):
        raise value_error(
            f'distill.{name}.type',
            'a loss whose forward takes student and teacher features, forward(preds_S, preds_T)',
            f'{type(loss).__name__}.forward({", ".join(p.name for p in parameters)})',
        )
    return loss


def _parameters(loss):
    return [
        p
        for p in inspect.signature(loss.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]


def asks(loss):
    """Names in ``BY_NAME`` that the loss' forward takes: list[str]."""
    return [p.name for p in _parameters(loss) if p.name in BY_NAME]


def needs_teacher(loss):
    """Whether forward takes teacher features in second place."""
    return _parameters(loss)[1].name not in BY_NAME


def run_loss(name, loss, *features, **named):
    """What a loss gives for features that it may not be made for.

    Raises:
        ValueError: It raised something else than a message of ours, or gave something else than scalars.
    """
    with naming(f'distill.{name}', f'read where there is what {type(loss).__name__} takes', features):
        value = loss(*features, **named)
    values = list(value.values()) if isinstance(value, dict) else [value]
    if not values or not all(isinstance(one, torch.Tensor) and one.dim() == 0 for one in values):
        raise value_error(
            f'distill.{name}',
            'a loss that gives a scalar, or a dict of them',
            f'{type(loss).__name__}, which gives {shapes(values)}',
        )
    return value


def set_up(place, loss, **facts):
    """Hands a loss the facts that its ``setup`` asks for by name, if any.

    Raises:
        ValueError: It needs one that is not known at this place.
    """
    setup = getattr(loss, 'setup', None)
    if not callable(setup):
        return
    wanted = inspect.signature(setup).parameters
    missing = [name for name, p in wanted.items() if p.default is p.empty and name not in facts]
    if missing:
        raise value_error(
            place,
            f'a place where {", ".join(missing)} is known, which {type(loss).__name__} needs',
            f'one of {", ".join(facts)}',
            "Losses of regions go with at='embedding' and at='logits', those of feature maps with all others.",
        )
    setup(**{name: facts[name] for name in wanted if name in facts})


def _loss_names():
    import mmrazor.models.losses as razor

    import kd_ext.losses as own

    return [f'kd_ext.{name}' for name in own.__all__ if name.endswith('Loss')] + [
        f'mmrazor.{name}' for name in razor.__all__
    ]
