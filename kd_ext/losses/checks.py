"""Checks that every loss makes of its arguments."""

import torch

from kd_ext.errors import is_number, type_error, value_error


def check_weight(name, value):
    """A finite number that is not negative."""
    if not is_number(value) or value < 0:
        raise value_error(
            name, 'a finite number >= 0', repr(value), 'A term is switched off by weight 0 or by removing it.'
        )
    return float(value)


def check_some_weight(**weights):
    """At least one of the named weights is not 0."""
    if not any(weights.values()):
        raise value_error(
            ' and '.join(weights),
            'not 0 both',
            'a loss without any term',
            'Remove the loss to do without it, or set loss_weight=0.',
        )


def check_count(name, value):
    """A whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise value_error(name, 'a whole number >= 1', repr(value))
    return value


def check_tensor(name, value, dims, shape):
    """A floating-point tensor with ``dims`` dimensions."""
    if not isinstance(value, torch.Tensor):
        raise type_error(name, f'a tensor {shape}', type(value).__name__)
    if value.dim() not in dims or not value.is_floating_point():
        raise value_error(name, f'a floating-point tensor {shape}', f'{value.dtype} of shape {tuple(value.shape)}')


def check_pair(preds_S, preds_T, dims, shape):
    """Two floating-point tensors of one shape with ``dims`` dimensions."""
    check_tensor('preds_S', preds_S, dims, shape)
    check_tensor('preds_T', preds_T, dims, shape)
    if preds_S.shape != preds_T.shape:
        raise value_error(
            'preds_S and preds_T',
            'of one shape',
            f'{tuple(preds_S.shape)} and {tuple(preds_T.shape)}',
            'kd_ext.DetectionDistill adds a projector and a resize where teacher and student differ.',
        )


def check_levels(preds_S, preds_T):
    """As many student levels as teacher levels, and at least one."""
    for name, levels in (('preds_S', preds_S), ('preds_T', preds_T)):
        if not isinstance(levels, (tuple, list)):
            raise type_error(name, 'a tensor or a tuple of levels', type(levels).__name__)
    if len(preds_S) != len(preds_T) or not len(preds_S):
        raise value_error(
            'preds_S and preds_T', 'the same number of levels, at least one', f'{len(preds_S)} and {len(preds_T)}'
        )
