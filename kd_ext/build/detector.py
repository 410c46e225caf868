"""A detector from a config: found, and built in the scope that it lives in."""

import contextlib
import os

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope

from kd_ext.build.extras import require_extra
from kd_ext.errors import file_error, is_ours, near_matches, type_error, value_error


@contextlib.contextmanager
def detector_scope(cfg=None):
    """Builds under the scope that a model lives in.

    ``_scope_`` of a config wins, then the prefix of its ``type``, as in ``mmseg.EncoderDecoder``; else the default
    scope, unless it is one that holds no detectors (kd_ext, mmrazor, mmengine): then mmdet.

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
        return _plain(source if 'type' in source else _scoped_model(source), name)
    if not isinstance(source, (str, os.PathLike)):
        raise type_error(name, 'a config path, a pkg::config name, a dict or a model', type(source).__name__)
    source = os.fspath(source)
    if '::' not in source and not os.path.isfile(source):
        raise file_error(name, 'the path of a config file', repr(source), _neighbours(source))
    try:
        cfg = get_config(source) if '::' in source else Config.fromfile(source)
    except (OSError, ValueError, AssertionError) as error:
        raise file_error(
            name, 'a config that can be read', repr(source), f'{error} {_neighbours(source)}'.strip()
        ) from error
    if 'model' not in cfg:
        raise value_error(name, 'a config with a model', f'{source!r} without one')
    if '::' in source:
        cfg.model.setdefault('_scope_', source.partition('::')[0])
    return _plain(_scoped_model(cfg), name)


def _plain(model, name):
    """``model``, or the student of one that distills."""
    kind = model.get('type') if isinstance(model, dict) else None
    if kind is None:
        raise value_error(name, 'a config of a detector', 'one whose model has no type')
    if not getattr(kind, '__name__', str(kind)).endswith('DetectionDistill'):
        return model
    student = model['student']
    if isinstance(student, dict) and '_scope_' in model:
        student.setdefault('_scope_', model['_scope_'])
    return model_config(student, name)


def _scoped_model(cfg):
    """The model of a whole config, which knows the scope of its types."""
    model = cfg.get('model')
    if cfg.get('default_scope') and isinstance(model, dict):
        model.setdefault('_scope_', cfg['default_scope'])
    return model


def _neighbours(source):
    package, _, inside = source.rpartition('::')
    if package:
        from mmengine.utils import get_installed_path

        try:
            folder = os.path.join(get_installed_path(package), '.mim', 'configs', os.path.dirname(inside))
        except Exception:  # not installed: nothing to list
            return f'Is {package!r} installed?'
    else:
        folder = os.path.dirname(source) or '.'
    if not os.path.isdir(folder):
        return f'The folder {folder!r} does not exist.'
    names = sorted(n for n in os.listdir(folder) if n.endswith('.py'))
    return near_matches(os.path.basename(source), names) if names else ''


def build_detector(source, role):
    """A detector as its config says, its weights not initialised.

    Args:
        source (str | dict): See :func:`model_config`.
        role (str): Of the model, for messages.

    Returns:
        BaseModel

    Raises:
        ValueError: Nothing can be built of it, or no detector is.
    """
    cfg = model_config(source, role)
    with detector_scope(cfg):
        try:
            model = MODELS.build(ConfigDict(cfg))
        except Exception as error:
            if is_ours(error):
                raise
            raise value_error(
                role,
                'the config of a detector that can be built',
                f'one that ends in {type(error).__name__}: {error}',
                'It has to build without distillation, too.',
            ) from error
    if not isinstance(model, BaseModel):
        raise type_error(role, 'a detector, a BaseModel of MMEngine', f'a {type(model).__name__}')
    return model
