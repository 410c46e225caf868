"""The models that a tool of ``tools/analysis`` is asked for."""

from pathlib import Path

from kd_ext.analysis import sources
from kd_ext.messages import expected
from .config import load_config, student_only
from .data_check import check_checkpoint


def chosen_models(args, cfg):
    """Name, model config and checkpoint by role.

    ``model`` is CONFIG's, where there is no teacher; else ``teacher``, which
    ``--teacher`` or a config that distills names, and ``student``.

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
        source, name = sources.teacher_source(other, config)
        models['teacher'] = name, source, checkpoint
    elif sources.distills(cfg):
        checkpoint = cfg.model.get('teacher_ckpt')
        if not isinstance(checkpoint, str):
            raise ValueError(expected(
                'model.teacher_ckpt', 'a path or URL', repr(checkpoint),
                'Name the teacher: --teacher CONFIG CHECKPOINT.'))
        source, name = sources.teacher_source(cfg, args.config)
        models['teacher'] = name, source, checkpoint
    source = sources.own_model(student_only(cfg.copy()))
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
        config=name, checkpoint=Path(checkpoint).name,
        checkpoint_sha256=sources.checkpoint_digest(
            checkpoint, model)[:sources.PREFIX])
