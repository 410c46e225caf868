"""The teacher: found, built, loaded to the last key, frozen."""

import contextlib
import os
import pickle

import torch
from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader

from kd_ext.checkpoints import refusal
from kd_ext.extras import require_extra
from kd_ext.messages import expected, near_matches
from .faults import bad_weights

RANDOM = 'random'
CONFIGS = ('.py', '.json', '.yaml', '.yml')


@contextlib.contextmanager
def detector_scope(cfg=None):
    """Builds under the scope that a model lives in.

    ``_scope_`` of a config wins, then the prefix of its ``type``, as in
    ``mmseg.EncoderDecoder``; else the default scope, unless it is one that
    holds no detectors (kd_ext, mmrazor, mmengine): then mmdet.

    Raises:
        ModuleNotFoundError: The scope belongs to an extra that is missing.
    """
    cfg = cfg or {}
    scope = cfg.get('_scope_')
    if scope is None and isinstance(cfg.get('type'), str):
        prefix = cfg['type'].partition('.')[0]
        scope = prefix if prefix in MODULE2PACKAGE else None
    if scope is None:
        current = DefaultScope.get_current_instance()
        scope = current.scope_name if current else None
        if scope in (None, 'kd_ext', 'mmrazor', 'mmengine'):
            scope = 'mmdet'
    require_extra(scope)
    with DefaultScope.overwrite_default_scope(scope):
        yield


def model_config(source, name):
    """The model dict behind a path, a ``pkg::config`` name or a dict.

    Of a config that distills it is the student: what its checkpoints hold.

    Raises:
        FileNotFoundError: No such config; the message lists near matches.
        TypeError: ``source`` is none of these.
    """
    if isinstance(source, dict):
        # a whole config may be given where its ``model`` is meant
        return _plain(source if 'type' in source else _scoped_model(source),
                      name)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(expected(
            name, 'a config path, a pkg::config name, a dict or a model',
            type(source).__name__))
    source = os.fspath(source)
    if '::' not in source and not os.path.isfile(source):
        raise FileNotFoundError(expected(
            name, 'the path of a config file', repr(source),
            _neighbours(source)))
    try:
        cfg = (get_config(source) if '::' in source
               else Config.fromfile(source))
    except (OSError, ValueError, AssertionError) as error:
        raise FileNotFoundError(expected(
            name, 'a config that can be read', repr(source),
            f'{error} {_neighbours(source)}'.strip())) from error
    if 'model' not in cfg:
        raise ValueError(expected(
            name, 'a config with a model', f'{source!r} without one'))
    if '::' in source:
        cfg.model.setdefault('_scope_', source.partition('::')[0])
    return _plain(_scoped_model(cfg), name)


def _plain(model, name):
    """``model``, or the student of one that distills."""
    kind = model.get('type')
    if kind is None:
        raise ValueError(expected(
            name, 'a config of a detector', 'one whose model has no type'))
    if not getattr(kind, '__name__', str(kind)).endswith('DetectionDistill'):
        return model
    student = model['student']
    if isinstance(student, dict) and '_scope_' in model:
        student.setdefault('_scope_', model['_scope_'])
    return model_config(student, name)


def _scoped_model(cfg):
    """The model of a whole config, which knows the scope of its types."""
    if cfg.get('default_scope'):
        cfg['model'].setdefault('_scope_', cfg['default_scope'])
    return cfg['model']


def _neighbours(source):
    package, _, inside = source.rpartition('::')
    if package:
        from mmengine.utils import get_installed_path
        try:
            folder = os.path.join(get_installed_path(package), '.mim',
                                  'configs', os.path.dirname(inside))
        except Exception:  # not installed: nothing to list
            return f'Is {package!r} installed?'
    else:
        folder = os.path.dirname(source) or '.'
    if not os.path.isdir(folder):
        return f'The folder {folder!r} does not exist.'
    names = sorted(n for n in os.listdir(folder) if n.endswith('.py'))
    return near_matches(os.path.basename(source), names) if names else ''


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
    if isinstance(source, BaseModel):
        teacher = source
    else:
        cfg = model_config(source, role)
        with detector_scope(cfg):
            teacher = MODELS.build(ConfigDict(cfg))
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
        load_teacher(teacher, checkpoint, allow_mismatch, role)
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
