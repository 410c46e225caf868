"""Loads a checkpoint into a teacher and accounts for every key."""

from __future__ import annotations

import os
import pickle
from logging import INFO, WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import nn

from kd_ext.errors import bad_weights, expected, explaining, file_error, refusal, value_error

CONFIGS = ('.py', '.json', '.yaml', '.yml')


def checkpoint_key(role: str) -> str:
    """The setting that names a role's checkpoint, for messages."""
    kind, _, name = role.partition('.')
    if kind != 'teacher':
        return f'the checkpoint of the {role}'
    return f'teacher_ckpt.{name}' if name else 'teacher_ckpt'


def read_checkpoint(path: str, key: str = 'teacher_ckpt') -> tuple[dict, dict]:
    """The state dict of a file or URL, without the prefix ``module.``, and the meta data beside it."""
    if '://' not in path and not os.path.isfile(path):
        raise file_error(key, 'a file or URL', repr(path), 'Download or train it first, or correct the path.')
    if path.endswith(CONFIGS):
        raise value_error(
            key, 'a checkpoint', f'the config {path!r}', 'The config belongs to teacher, the .pth file here.'
        )
    with explaining(key, 'a readable checkpoint with a state dict', f'{path!r} ({{}})', 'Fetch or train it again.'):
        try:
            content = CheckpointLoader.load_checkpoint(path, 'cpu', logger='silent')
        except pickle.UnpicklingError as error:
            raise ValueError(refusal(key, error, path)) from error
        state = content.get('state_dict', content)
        state = {key[7:] if key.startswith('module.') else key: value for key, value in state.items()}
        if not any(isinstance(v, torch.Tensor) for v in state.values()):
            raise ValueError('it holds no tensors')
    meta = content.get('meta')
    return state, meta if isinstance(meta, dict) else {}


def load_teacher(teacher: Any, path: str, allow_mismatch: bool = False, role: str = 'teacher') -> dict[str, list[str]]:
    """Loads ``path`` into a model and accounts for every key.

    Returns:
        Keys by kind: ``matched``, ``missing``, ``unexpected`` and ``reshaped`` (on both sides, with different
            shapes).
    """
    key = checkpoint_key(role)
    state, meta = read_checkpoint(path, key)
    own = teacher.state_dict()
    reshaped = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    shapes = {
        name: f'{tuple(state.pop(name).shape)} in the file, {tuple(own[name].shape)} in the model' for name in reshaped
    }
    rule, remedy = f'a checkpoint of {type(teacher).__name__}', 'Name the config that it was trained with.'
    with explaining(key, rule, f'{path!r} ({{}})', remedy):  # some detectors rename keys while loading
        result = teacher.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if name not in shapes]
    faults = dict(
        missing=[name for name in missing if not name.endswith('num_batches_tracked')],
        unexpected=list(result.unexpected_keys),
        reshaped=reshaped,
    )
    matched = [name for name in own if name not in shapes and name not in missing]
    text = f'{len(matched)} of {len(own)} keys matched, {_counts(faults)}'
    if any(faults.values()) and not allow_mismatch:
        raise ValueError(_mismatch(teacher, role, f'{path!r} with {text}', faults, shapes))
    print_log(f'{role}: {text} ({path})', 'current', WARNING if any(faults.values()) else INFO)
    damaged = bad_weights(teacher)
    if damaged:
        found, remedy = f'{path!r} with {damaged} that are not', 'Its training diverged: take an earlier checkpoint.'
        raise value_error(key, 'of finite weights', found, remedy)
    teacher.class_names, teacher.checkpoint = _class_names(meta), path
    teacher._is_init = True  # MMEngine's init_weights then skips it
    return dict(faults, matched=matched)


def _class_names(meta: dict) -> list[str] | None:
    """Classes that a checkpoint was trained on, or None."""
    dataset = meta.get('dataset_meta')
    names = dataset.get('classes') if isinstance(dataset, dict) else None
    names = meta.get('CLASSES') if names is None else names
    if isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names):
        return list(names)
    return None


def _counts(faults: dict[str, list[str]]) -> str:
    return ', '.join(f'{len(names)} {kind}' for kind, names in faults.items())


def _mismatch(teacher: nn.Module, role: str, found: str, faults: dict[str, list[str]], shapes: dict) -> str:
    samples = [f'{kind}: {", ".join(faults[kind][:3])}, ...' for kind in ('missing', 'unexpected') if faults[kind]]
    samples += [f'reshaped: {name} ({shape})' for name, shape in shapes.items()][:1]
    remedy = 'Is it the checkpoint of another architecture, or of another number of classes?'
    if role.startswith('teacher'):
        remedy += ' Correct teacher or teacher_ckpt; to go on all the same, set allow_teacher_mismatch=True.'
    rule = f'the weights of the {role.partition(".")[0]} {type(teacher).__name__}'
    return expected(checkpoint_key(role), rule, f'{found} ({"; ".join(samples)})', remedy)
