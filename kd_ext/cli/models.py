"""The models that a tool of ``tools/analysis`` is asked for."""

import os
from pathlib import Path

from mmengine.device import get_device

from kd_ext.build.configs import distills
from kd_ext.build.detector import model_config, student_config
from kd_ext.cli.config import load_config
from kd_ext.cli.data_check import check_checkpoint
from kd_ext.errors import value_error
from kd_ext.teachers.build import build_teacher
from kd_ext.teachers.identity import PREFIX, checkpoint_digest


def chosen_models(args, cfg):
    """Name, model config and checkpoint by role.

    ``model`` is CONFIG's, where there is no teacher; else ``teacher``, which ``--teacher`` or a config that
    distills names, and ``student``.

    Args:
        args (Namespace): With config, checkpoint, teacher and launcher.
        cfg (Config): Of ``args.config``.

    Raises:
        ValueError: The config names no checkpoint of its teacher.
        FileNotFoundError: A checkpoint is not there.
    """
    models = {}
    if args.teacher is not None:
        config, checkpoint = args.teacher
        other = load_config(_Arguments(config, args.launcher))
        source, name = teacher_source(other, config)
        models['teacher'] = name, source, checkpoint
    elif distills(cfg.model):
        checkpoint = teacher_checkpoint(cfg, 'Name the teacher: --teacher CONFIG CHECKPOINT.')
        source, name = teacher_source(cfg, args.config)
        models['teacher'] = name, source, checkpoint
    source = own_model(student_config(cfg))
    name = args.config if '::' in args.config else Path(args.config).name
    role = 'student' if models else 'model'
    models[role] = name, source, args.checkpoint
    for role, (_, _, checkpoint) in models.items():
        check_checkpoint(f'the checkpoint of the {role}', checkpoint)
    return models


class _Arguments:
    """What ``load_config`` reads, of a config without changes."""

    cfg_options = None

    def __init__(self, config, launcher):
        self.config, self.launcher = config, launcher


def identity(name, checkpoint, model):
    """What was measured, without paths of this machine."""
    return dict(
        config=name, checkpoint=Path(checkpoint).name, checkpoint_sha256=checkpoint_digest(checkpoint, model)[:PREFIX]
    )


def teacher_source(cfg, name):
    """Model config of the teacher, and a name without a machine's paths.

    Args:
        cfg (Config): Of the teacher, or of a training under it.
        name (str): How ``cfg`` was given.
    """
    if distills(cfg.model):
        source = cfg.model.get('teacher')
        model = model_config(source, 'model.teacher')
        name = source if isinstance(source, str) else model['type']
    else:
        model = own_model(cfg)
    name = getattr(name, '__name__', str(name))
    return model, name if '::' in name else os.path.basename(name)


def teacher_checkpoint(cfg, remedy):
    """The weights that a config which distills names for its one teacher."""
    checkpoint = cfg.model.get('teacher_ckpt')
    if not isinstance(checkpoint, str):
        raise value_error('model.teacher_ckpt', 'a path or URL', repr(checkpoint), remedy)
    return checkpoint


def own_model(cfg):
    """Model config of a config, with the scope of its types and its data preprocessor."""
    return model_config({key: cfg.get(key) for key in ('model', 'default_scope', 'data_preprocessor')}, 'config')


def load_model(model, checkpoint, role='teacher'):
    """A frozen detector on this process's device."""
    return build_teacher(model, checkpoint, role=role).to(get_device())
