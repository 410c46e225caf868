"""The teacher: built, loaded to the last key, frozen."""

import os
import pickle

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader

from kd_ext.checkpoints import refusal
from kd_ext.messages import expected
from .detector import build_detector
from .faults import bad_weights

RANDOM = 'random'
CONFIGS = ('.py', '.json', '.yaml', '.yml')


def build_teacher(source, checkpoint, allow_mismatch=False, role='teacher'):
    """Builds, loads and freezes a teacher, or what a tool measures.

    Args:
        source (str | dict | BaseModel): Config path, ``pkg::config``, model
            config or a model; a model may come with its weights.
        checkpoint (str | None): Path or URL of its weights; ``'random'``
            trains under an untrained teacher (tests).
        allow_mismatch (bool): Go on although keys are missing, unexpected or
            of another shape.
        role (str): What messages call it: ``'teacher'``, ``'teacher.big'``
            of several, ``'student'``.

    Returns:
        BaseModel: In eval mode, no parameter requires a gradient.

    Raises:
        FileNotFoundError: Config or checkpoint is not there.
        ValueError: The checkpoint is unreadable or does not fit.
    """
    if checkpoint is not None and not isinstance(
            checkpoint, (str, os.PathLike)):
        raise TypeError(expected(checkpoint_key(role), 'a path or URL',
                                 f'a {type(checkpoint).__name__}'))
    if not isinstance(allow_mismatch, bool):
        raise TypeError(expected('allow_teacher_mismatch', 'True or False',
                                 repr(allow_mismatch)))
    if isinstance(source, BaseModel):
        teacher = source
    else:
        teacher = build_detector(source, role)
        if not checkpoint:
            raise ValueError(expected(
                checkpoint_key(role), 'the path or URL of its weights',
                repr(checkpoint),
                'An untrained teacher teaches nothing; where that is meant '
                f'(a test), pass teacher_ckpt={RANDOM!r}.'))
    if checkpoint == RANDOM:
        print_log(f'{role}: UNTRAINED, random weights', 'current', 30)
        initialise(teacher)
    elif checkpoint:
        load_teacher(teacher, os.fspath(checkpoint), allow_mismatch, role)
    teacher.requires_grad_(False)
    teacher.eval()  # what it returns is not to be relied on: LD gives None
    return teacher


def initialise(teacher):
    """Random weights of the usual scale, nothing downloaded."""
    for module in teacher.modules():
        if hasattr(module, '_is_init'):
            module._is_init = False
        cfg = getattr(module, 'init_cfg', None)
        if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained':
            module.init_cfg = None
    teacher.init_weights()


def checkpoint_key(role):
    """Where the weights of a role are named."""
    kind, _, name = role.partition('.')
    if kind != 'teacher':
        return f'the checkpoint of the {role}'
    return f'teacher_ckpt.{name}' if name else 'teacher_ckpt'


def read_checkpoint(path, key='teacher_ckpt'):
    """The state dict in a checkpoint file or URL, without ``module.``.

    Args:
        path (str): Of the file, or a URL.
        key (str): What messages call it.

    Returns:
        tuple[dict, dict]: The state dict, and the meta data beside it.
    """
    if '://' not in path and not os.path.isfile(path):
        raise FileNotFoundError(expected(
            key, 'a file or URL', repr(path),
            'Download or train it first, or correct the path.'))
    if path.endswith(CONFIGS):
        raise ValueError(expected(
            key, 'a checkpoint', f'the config {path!r}',
            'The config belongs to teacher, the .pth file here.'))
    try:
        content = CheckpointLoader.load_checkpoint(path, 'cpu', logger=None)
        state = content.get('state_dict', content)
        state = {key[7:] if key.startswith('module.') else key: value
                 for key, value in state.items()}
        if not any(isinstance(v, torch.Tensor) for v in state.values()):
            raise ValueError('it holds no tensors')
    except pickle.UnpicklingError as error:
        raise ValueError(refusal(key, error, path)) from error
    except Exception as error:
        raise ValueError(expected(
            key, 'a readable checkpoint with a state dict',
            f'{path!r} ({type(error).__name__}: {str(error)[:300]})',
            'Fetch or train it again.')) from error
    return state, content.get('meta') or {}


def load_teacher(teacher, path, allow_mismatch=False, role='teacher'):
    """Loads ``path`` and accounts for every key.

    Returns:
        dict[str, list[str]]: Keys ``matched``, ``missing``, ``unexpected``
        and ``reshaped`` (present on both sides, of different shapes).
    """
    key = checkpoint_key(role)
    state, meta = read_checkpoint(path, key)
    own = teacher.state_dict()
    reshaped = [name for name, value in state.items()
                if name in own and own[name].shape != value.shape]
    shapes = {name: f'{tuple(state.pop(name).shape)} in the file, '
                    f'{tuple(own[name].shape)} in the model'
              for name in reshaped}
    try:
        result = teacher.load_state_dict(state, strict=False)
    except RuntimeError as error:  # some detectors rename keys while loading
        raise ValueError(expected(
            key, f'a checkpoint of {type(teacher).__name__}',
            f'{path!r} ({str(error)[:300]})', 'Name the config that it was '
            'trained with.')) from error
    report = dict(
        missing=[name for name in result.missing_keys if name not in shapes
                 and not name.endswith('num_batches_tracked')],
        unexpected=list(result.unexpected_keys), reshaped=reshaped)
    report['matched'] = [name for name in own if name not in shapes
                         and name not in result.missing_keys]
    text = (f'{role}: {len(report["matched"])} of {len(own)} keys matched, '
            + ', '.join(f'{len(report[kind])} {kind}' for kind in
                        ('missing', 'unexpected', 'reshaped'))
            + f' ({path})')
    if any(report[kind] for kind in ('missing', 'unexpected', 'reshaped')):
        if not allow_mismatch:
            raise ValueError(_mismatch(teacher, role, path, report,
                                       shapes))
        print_log(text, 'current', 30)
    else:
        print_log(text, 'current')
    damaged = bad_weights(teacher)
    if damaged:
        raise ValueError(expected(
            key, 'of finite weights', f'{path!r} with {damaged} that are not',
            'Its training diverged: take an earlier checkpoint.'))
    teacher.class_names = _class_names(meta)
    teacher._is_init = True  # MMEngine's init_weights leaves it alone
    return report


def _class_names(meta):
    """Names of the classes that a checkpoint was trained on, or None."""
    names = (meta.get('dataset_meta') or {}).get('classes',
                                                 meta.get('CLASSES'))
    return None if names is None else list(names)


def _mismatch(teacher, role, path, report, shapes):
    samples = []
    for kind in ('missing', 'unexpected'):
        if report[kind]:
            samples.append(f'{kind}: {", ".join(report[kind][:3])}, ...')
    if shapes:
        key = next(iter(shapes))
        samples.append(f'reshaped: {key} ({shapes[key]})')
    remedy = ('Is it the checkpoint of another architecture, or of another '
              'number of classes?')
    if role.startswith('teacher'):
        remedy += (' Correct teacher or teacher_ckpt; to go on all the same, '
                   'set allow_teacher_mismatch=True.')
    return expected(
        checkpoint_key(role), f'the weights of the {role.partition(".")[0]} '
        f'{type(teacher).__name__}',
        f'{path!r} with {len(report["matched"])} keys matched, '
        f'{len(report["missing"])} missing, {len(report["unexpected"])} '
        f'unexpected, {len(report["reshaped"])} of another shape '
        f'({"; ".join(samples)})', remedy)
