"""Builds a detector from its config, in the scope of its types."""

from __future__ import annotations

import contextlib
import copy
import os
from typing import Any, Iterator

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope

from kd_ext.build.configs import distills, read_config
from kd_ext.build.extras import require_extra
from kd_ext.errors import explaining, type_error, value_error


@contextlib.contextmanager
def detector_scope(cfg: dict | None = None) -> Iterator[None]:
    """Context that makes the scope of a model config the default scope.

    Its ``_scope_`` wins, then the prefix of its ``type`` (``mmseg.EncoderDecoder``), then the current default
    scope. A default scope without detectors (kd_ext, mmrazor, mmengine) is replaced by mmdet.

    Raises:
        ModuleNotFoundError: The scope needs an extra that is not installed.
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


def model_config(source: str | os.PathLike | dict, name: str) -> dict:
    """The model config of a path, a ``pkg::config`` name, a whole config or a model dict.

    For a config that distills it is the student's, as that is what its checkpoints hold. ``name`` is the setting
    that ``source`` was given to, for messages.

    Raises:
        FileNotFoundError: No such config; the message lists near matches.
        TypeError: ``source`` has another type.
        ValueError: The config cannot be read, or has no model.
    """
    if isinstance(source, (str, os.PathLike)):
        cfg = read_config(source, name)
        if 'model' not in cfg:
            raise value_error(name, 'a config with a model', f'{os.fspath(source)!r} without one')
        package, colons, _ = os.fspath(source).partition('::')
        if colons:
            cfg.model.setdefault('_scope_', package)
        model = _scoped_model(cfg)
    elif isinstance(source, dict):
        model = source if 'type' in source else _scoped_model(source)
    else:
        raise type_error(name, 'a config path, a pkg::config name, a dict or a model', type(source).__name__)
    if not isinstance(model, dict) or model.get('type') is None:
        raise value_error(name, 'a config of a detector', 'one whose model has no type')
    if not distills(model):
        return model
    student = model['student']
    for key in ('_scope_', 'data_preprocessor'):
        if isinstance(student, dict) and key in model:
            student.setdefault(key, model[key])
    return model_config(student, name)


def _scoped_model(cfg: Config | dict) -> Any:
    """The model of a whole config, with the config's scope and, as in a runner, its data preprocessor."""
    model = cfg.get('model')
    if isinstance(model, dict):
        for key, source in (('_scope_', 'default_scope'), ('data_preprocessor', 'data_preprocessor')):
            if cfg.get(source):
                model.setdefault(key, cfg[source])
    return model


def own_model(cfg: Config) -> dict:
    """The model of a whole config, with the config's scope and data preprocessor."""
    keys = ('model', 'default_scope', 'data_preprocessor')
    return model_config({key: cfg[key] for key in keys if cfg.get(key) is not None}, 'config')


def student_config(cfg: Config) -> Config:
    """The config of the student alone: a copy, or ``cfg`` itself if it does not distill.

    Scoring a student needs no teacher, because its checkpoint is that of a plain detector. Hooks of kd_ext and
    mmrazor, which work on the algorithm, are left out.
    """
    if not distills(cfg.model):
        return cfg
    cfg = copy.deepcopy(cfg)
    model = cfg.model
    student = model_config(model.student, 'model.student')
    if model.get('data_preprocessor') is not None:
        student.setdefault('data_preprocessor', model.data_preprocessor)
    cfg.model = student
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if not _is_of(hook, ('kd_ext.', 'mmrazor.'))]
    return cfg


def _is_of(cfg: dict, packages: tuple[str, ...]) -> bool:
    kind = cfg.get('type')
    return (kind if isinstance(kind, str) else f'{getattr(kind, "__module__", "")}.').startswith(packages)


def build_detector(source: str | os.PathLike | dict, role: str) -> BaseModel:
    """Builds a detector from a source of :func:`model_config`, without initialising its weights.

    ``role`` is what messages call the model, such as ``'student'``.

    Raises:
        TypeError: The built model is not a detector.
        ValueError: The config cannot be built.
    """
    cfg = model_config(source, role)
    rule, remedy = 'the config of a detector that can be built', 'It has to build without distillation, too.'
    with detector_scope(cfg), explaining(role, rule, 'one that ends in {}', remedy):
        model = MODELS.build(ConfigDict(cfg))
    if not isinstance(model, BaseModel):
        raise type_error(role, 'a detector, a BaseModel of MMEngine', f'a {type(model).__name__}')
    return model
