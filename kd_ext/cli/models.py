"""The models that an analysis tool measures, and the files that it writes."""

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
from kd_ext.build.detector import model_config, own_model, student_config
from kd_ext.cli.config import load_config, make_folder
from kd_ext.cli.data_check import check_checkpoint
from kd_ext.engine.whole_files import write_text
from kd_ext.errors import value_error
from kd_ext.teachers.build import build_teacher
from kd_ext.teachers.identity import PREFIX, checkpoint_digest


def chosen_models(args: argparse.Namespace, cfg: Config) -> dict[str, tuple[str, dict, str]]:
    """Name, model config and checkpoint of each model, by role.

    A single model has the role ``model``. With ``--teacher``, or a config that distills, the roles are ``teacher``
    and ``student``.

    Args:
        args: With config, checkpoint, teacher and launcher.
        cfg: The config that ``args.config`` names.

    Raises:
        ValueError: The config names no checkpoint of its teacher.
        FileNotFoundError: A checkpoint does not exist.
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
    """Identifies a measured model without paths of this machine."""
    return dict(
        config=name, checkpoint=Path(checkpoint).name, checkpoint_sha256=checkpoint_digest(checkpoint, model)[:PREFIX]
    )


def teacher_source(cfg: Config, name: str) -> tuple[dict, str]:
    """The teacher's model config in ``cfg``, its own or one that distills from it, and a name without paths."""
    if distills(cfg.model):
        source = cfg.model.get('teacher')
        model = model_config(source, 'model.teacher')
        name = source if isinstance(source, str) else model['type']
    else:
        model = own_model(cfg)
    name = getattr(name, '__name__', str(name))
    return model, name if '::' in name else os.path.basename(name)


def teacher_checkpoint(cfg: Config, remedy: str) -> str:
    """The checkpoint of the teacher in a config that distills; raises a ``ValueError`` if there is not exactly one."""
    checkpoint = cfg.model.get('teacher_ckpt')
    if not isinstance(checkpoint, str):
        raise value_error('model.teacher_ckpt', 'a path or URL', repr(checkpoint), remedy)
    return checkpoint


def load_model(model: dict, checkpoint: str, role: str = 'teacher') -> BaseModel:
    """A frozen detector on this process's device."""
    return build_teacher(model, checkpoint, role=role).to(get_device())


def write_results(folder: str, name: str, draw: Callable[[Path], Any], content: dict) -> None:
    """Writes a figure, ``FOLDER/NAME.png``, and the numbers, ``FOLDER/NAME.json``."""
    path = make_folder(folder, 'the folder for results')
    draw(path / f'{name}.png')
    write_text(path / f'{name}.json', json.dumps(content, indent=1) + '\n')
    print(f'wrote {path}/{name}.png and .json')
