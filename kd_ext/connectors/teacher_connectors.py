"""Modules that a teacher's maps pass through before they are compared."""

from torch import nn

from kd_ext.build.modules import arguments, build_module
from kd_ext.connectors.margins import bn_margin
from kd_ext.errors import value_error


def teacher_connectors(name, cfg, tap, teacher, levels, widths):
    """One module for each level, or none at all.

    A connector that takes ``in_channel`` gets the teacher's width; one with ``init_margin``
    (``mmrazor.OFDTeacherConnector``) gets the margin of the BN that its level comes from.

    Args:
        name (str): Of the term, for messages.
        cfg (dict, optional): Config of a connector.
        tap (ModuleTap): Where the maps are read.
        teacher (nn.Module): With its weights.
        levels (Sequence[int]): Of the teacher.
        widths (Sequence[int]): Of these levels.

    Raises:
        ValueError: The connector cannot be built, or a margin is wanted where no BN is known.
    """
    connectors = nn.ModuleList()
    place = f'distill.{name}.teacher_connector'
    for level, width in zip(levels, widths if cfg is not None else ()):
        own = 'in_channel' in arguments(cfg)
        connector = build_module(place, cfg, **dict(in_channel=width) if own else {})
        if hasattr(connector, 'init_margin'):
            norm = _norm(name, tap, teacher, level)
            connector.init_margin(bn_margin(norm).view(1, -1, 1, 1))
        connectors.append(connector)
    return connectors


def _norm(name, tap, teacher, level):
    remedy = 'kd_ext.RunningMarginConnector takes the margins from the features instead.'
    if not hasattr(tap, 'norms'):
        raise value_error(
            f'distill.{name}.at', "'pre_relu', where margins can be had from the teacher's BN", repr(tap.path), remedy
        )
    norm = tap.norms(teacher, 'teacher')[level]
    if norm is None:
        raise value_error(
            f'distill.{name}',
            'read where the teacher has a BN before the activation',
            f'level {level} of {type(teacher.backbone).__name__} without one',
            remedy,
        )
    return norm
