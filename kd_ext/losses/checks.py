"""Checks that every loss makes of its arguments."""

from __future__ import annotations

from typing import Any, Sequence

from torch import Tensor

from kd_ext.errors import is_number, type_error, value_error


def check_weight(name: str, value: Any) -> float:
    """A finite number that is not negative."""
    if not is_number(value) or value < 0:
        raise value_error(
            name, 'a finite number >= 0', repr(value)[:50], 'A term is switched off by weight 0 or by removing it.'
        )
    return float(value)


def check_some_weight(**weights: float) -> None:
    """At least one of the named weights is not 0."""
    if not any(weights.values()):
        remedy = 'Remove the loss to do without it, or set loss_weight=0.'
        raise value_error(' and '.join(weights), 'not 0 both', 'a loss without any term', remedy)


def check_temperature(value: Any) -> float:
    """A finite number > 0."""
    if not is_number(value) or value <= 0:
        raise value_error('tau', 'a finite number > 0', repr(value)[:50])
    return float(value)


def check_count(name: str, value: Any) -> int:
    """A whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise value_error(name, 'a whole number >= 1', repr(value))
    return value


def check_flag(name: str, value: Any) -> bool:
    """True or False; the text 'False', which is true in Python, is refused."""
    if not isinstance(value, bool):
        raise value_error(name, 'True or False', repr(value), 'Write it without quotes.')
    return value


def check_tensor(name: str, value: Any, dims: Sequence[int], shape: str) -> None:
    """A floating-point tensor with ``dims`` dimensions."""
    if not isinstance(value, Tensor):
        raise type_error(name, f'a tensor {shape}', type(value).__name__)
    if value.dim() not in dims or not value.is_floating_point():
        raise value_error(name, f'a floating-point tensor {shape}', f'{value.dtype} of shape {tuple(value.shape)}')


def check_pair(preds_S: Tensor, preds_T: Tensor, dims: Sequence[int], shape: str) -> None:
    """Two floating-point tensors of one shape with ``dims`` dimensions."""
    check_tensor('preds_S', preds_S, dims, shape)
    check_tensor('preds_T', preds_T, dims, shape)
    if preds_S.shape != preds_T.shape:
        rule = 'of one shape'
        remedy = 'kd_ext.DetectionDistill adds a projector and a resize where teacher and student differ.'
        raise value_error('preds_S and preds_T', rule, f'{tuple(preds_S.shape)} and {tuple(preds_T.shape)}', remedy)


def as_levels(
    preds_S: Tensor | Sequence[Tensor], preds_T: Tensor | Sequence[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """As many student levels as teacher levels, and at least one; a tensor is one level."""
    preds_S, preds_T = ((preds,) if isinstance(preds, Tensor) else preds for preds in (preds_S, preds_T))
    for name, levels in (('preds_S', preds_S), ('preds_T', preds_T)):
        if not isinstance(levels, (tuple, list)):
            raise type_error(name, 'a tensor or a tuple of levels', type(levels).__name__)
    if len(preds_S) != len(preds_T) or not len(preds_S):
        counts = f'{len(preds_S)} and {len(preds_T)}'
        raise value_error('preds_S and preds_T', 'the same number of levels, at least one', counts)
    return preds_S, preds_T
