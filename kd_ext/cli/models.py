"""The models that an analysis tool is asked for, and the files that it writes."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Callable

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel

from kd_ext.build.configs import distills
from kd_ext.build.detector import model_config, student_config
from kd_ext.cli.config import load_config, make_folder
from kd_ext.cli.data_check import check_checkpoint
from kd_ext.engine.whole_files import write_text
from kd_ext.errors import value_error
from kd_ext.teachers.build import build_teacher
from kd_ext.teachers.identity import PREFIX, checkpoint_digest


def chosen_models(args: argparse.Namespace, cfg: Config) -> dict[str, tuple[str, dict, str]]:
    """Name, model config and checkpoint by role.

    The role is ``model`` where there is one model. Where ``--teacher`` or a config that distills names another,
    they are ``teacher`` and ``student``.

    Args:
        args: With config, checkpoint, teacher and launcher.
        cfg: The config that ``args.config`` names.

    Raises:
        ValueError: The config names no checkpoint of its teacher.
        FileNotFoundError: A checkpoint is not there.
    """
    models = {}
    if args.teacher is not None:
        config, checkpoint = args.teacher
        source, name = teacher_source(load_config(config, launcher=args.launcher), config)
        models['teacher'] = name, source, checkpoint
    elif distills(cfg.model):
        checkpoint = teacher_checkpoint(cfg, 'Name the teacher: --teacher CONFIG CHECKPOINT.')
        source, name = teacher_source(cfg, args.config)
        models['teacher'] = name, source, checkpoint
    name = args.config if '::' in args.config else Path(args.config).name
    models['student' if models else 'model'] = name, own_model(student_config(cfg)), args.checkpoint
    for role, (_, _, checkpoint) in models.items():
        check_checkpoint(f'the checkpoint of the {role}', checkpoint)
    return models


def identity(name: str, checkpoint: str, model: BaseModel) -> dict[str, str]:
    """Names the model that was measured, without paths of this machine."""
    return dict(
        config=name, checkpoint=Path(checkpoint).name, checkpoint_sha256=checkpoint_digest(checkpoint, model)[:PREFIX]
    )


def teacher_source(cfg: Config, name: str) -> tuple[dict, str]:
    """Model config of the teacher, and a name without paths of this machine.

    Args:
        cfg: The teacher's own config, or one that distills from it.
        name: How ``cfg`` was given.
    """
    if distills(cfg.model):
        source = cfg.model.get('teacher')
        model = model_config(source, 'model.teacher')
        name = source if isinstance(source, str) else model['type']
    else:
        model = own_model(cfg)
    name = getattr(name, '__name__', str(name))
    return model, name if '::' in name else os.path.basename(name)


def teacher_checkpoint(cfg: Config, remedy: str) -> str:
    """The weights that a config which distills names for its one teacher.

    Raises:
        ValueError: It names none, or those of several teachers.
    """
    checkpoint = cfg.model.get('teacher_ckpt')
    if not isinstance(checkpoint, str):
        raise value_error('model.teacher_ckpt', 'a path or URL', repr(checkpoint), remedy)
    return checkpoint


def own_model(cfg: Config) -> dict:
    """The model of a whole config, which knows the scope of its types."""
    keys = ('model', 'default_scope', 'data_preprocessor')
    return model_config({key: cfg[key] for key in keys if cfg.get(key) is not None}, 'config')


def load_model(model: dict, checkpoint: str, role: str = 'teacher') -> BaseModel:
    """A frozen detector on this process's device."""
    return build_teacher(model, checkpoint, role=role).to(get_device())


def write_results(folder: str, name: str, draw: Callable[[Path], Any], content: dict) -> None:
    """Writes a figure, ``FOLDER/NAME.png``, and the numbers, ``FOLDER/NAME.json``."""
    path = make_folder(folder, 'the folder for results')
    draw(path / f'{name}.png')
    write_text(path / f'{name}.json', json.dumps(content, indent=1) + '\n')
    print(f'wrote {path}/{name}.png and .json')
