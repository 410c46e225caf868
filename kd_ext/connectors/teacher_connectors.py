"""Modules that teacher maps pass through before the comparison."""

from __future__ import annotations

from typing import Any, Sequence

from torch import nn

from kd_ext.build.modules import arguments, build_module
from kd_ext.connectors.margins import bn_margin
from kd_ext.errors import value_error


def teacher_connectors(
    name: str, cfg: dict[str, Any] | None, tap: Any, teacher: Any, levels: Sequence[int], widths: Sequence[int]
) -> nn.ModuleList:
    """Builds a connector for each level, or none at all.

    A connector that takes ``in_channel`` gets the teacher's width. One with ``init_margin``
    (``mmrazor.OFDTeacherConnector``) gets the margin of its level's BN.

    Args:
        name: Of the term, for messages.
        cfg: Config of a connector, or None.
        tap: The tap that reads the maps of ``teacher``, which holds its weights.
        levels, widths: Of the teacher.

    Raises:
        ValueError: The connector cannot be built, or it needs a margin but no BN is known.
    """
    connectors = nn.ModuleList()
    for level, width in zip(levels, widths if cfg is not None else ()):
        facts: dict[str, Any] = dict(in_channel=width) if 'in_channel' in arguments(cfg) else {}
        connector: Any = build_module(f'distill.{name}.teacher_connector', cfg, **facts)
        if hasattr(connector, 'init_margin'):
            norm = _norm(name, tap, teacher, level)
            connector.init_margin(bn_margin(norm).view(1, -1, 1, 1))
        connectors.append(connector)
    return connectors


def _norm(name: str, tap: Any, teacher: Any, level: int) -> nn.Module:
    remedy = 'kd_ext.RunningMarginConnector takes the margins from the features instead.'
    if not hasattr(tap, 'norms'):
        rule = "'pre_relu', where margins can be had from the teacher's BN"
        raise value_error(f'distill.{name}.at', rule, repr(tap.path), remedy)
    norm = tap.norms(teacher, 'teacher')[level]
    if norm is None:
        found = f'level {level} of {type(teacher.backbone).__name__} without one'
        raise value_error(f'distill.{name}', 'read where the teacher has a BN before the activation', found, remedy)
    return norm
