"""Builds one teacher or several by name, and maps the classes of each."""

from __future__ import annotations

import os
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModel

from kd_ext.build.detector import build_detector
from kd_ext.errors import check_keys, type_error, value_error
from kd_ext.teachers.checkpoint import checkpoint_key, load_teacher
from kd_ext.teachers.class_map import ClassMap

RANDOM = 'random'
ONE = 'teacher'  # the name of a single teacher
CLASSES = ('student', 'teacher', 'aliases')


def build_teacher(source: Any, checkpoint: Any, allow_mismatch: bool = False, role: str = 'teacher') -> BaseModel:
    """Builds, loads and freezes a teacher, or a model that a tool measures.

    Args:
        source: Config path, ``pkg::config``, model config or a model, which may already hold its weights.
        checkpoint: Path or URL of the weights; ``'random'`` is for tests, which train under an untrained teacher.
        allow_mismatch: Accept missing, unexpected and reshaped keys.
        role: The model's name in messages: ``'teacher'``, ``'teacher.big'`` (one of several) or ``'student'``.

    Returns:
        The teacher, in eval mode and without gradients.

    Raises:
        FileNotFoundError: Config or checkpoint does not exist.
        ValueError: The checkpoint is unreadable or does not fit.
    """
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise type_error(checkpoint_key(role), 'a path or URL', f'a {type(checkpoint).__name__}')
    if not isinstance(allow_mismatch, bool):
        raise type_error('allow_teacher_mismatch', 'True or False', repr(allow_mismatch))
    if isinstance(source, BaseModel):
        teacher = source
        if any(p.is_meta for p in teacher.parameters()):
            rule = 'a model with weights'
            raise value_error(role, rule, 'one on the device meta', "Build it on 'cpu', or load its weights first.")
    else:
        teacher = build_detector(source, role)
        if not checkpoint:
            raise value_error(
                checkpoint_key(role),
                'the path or URL of its weights',
                repr(checkpoint),
                f'An untrained teacher teaches nothing; where that is meant (a test), pass teacher_ckpt={RANDOM!r}.',
            )
    if checkpoint == RANDOM:
        print_log(f'{role}: UNTRAINED, random weights', 'current', 30)
        initialise(teacher)
    elif checkpoint:
        load_teacher(teacher, os.fspath(checkpoint), allow_mismatch, role)
    teacher.requires_grad_(False)
    teacher.eval()  # not chained: LD's eval() returns None
    return teacher


def initialise(teacher: Any) -> None:
    """Draws random weights at the usual scale and downloads nothing."""
    for module in teacher.modules():
        if hasattr(module, '_is_init'):
            module._is_init = False
        cfg = getattr(module, 'init_cfg', None)
        if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained':
            module.init_cfg = None
    teacher.init_weights()


def build_teachers(source: Any, checkpoint: Any, allow_mismatch: bool = False) -> dict[str, BaseModel]:
    """:func:`build_teacher` for one teacher, or for several: then sources and checkpoints are dicts by name.

    Raises:
        ValueError: Teachers and checkpoints have different names; or see :func:`build_teacher`.
    """
    if not are_several(source):
        if isinstance(checkpoint, dict):
            raise value_error(
                'teacher_ckpt',
                'one path, as there is one teacher',
                repr(dict(checkpoint)),
                'For several teachers give both by name: teacher=dict(a=..., b=...), teacher_ckpt=dict(a=..., b=...).',
            )
        return {ONE: build_teacher(source, checkpoint, allow_mismatch)}
    if not isinstance(checkpoint, dict) or set(checkpoint) != set(source):
        raise value_error('teacher_ckpt', f'a dict with a path for each of {", ".join(source)}', repr(checkpoint))
    for name in source:
        if not isinstance(name, str) or not name.isidentifier():
            raise value_error('the name of a teacher', 'an identifier', repr(name))
    return {
        name: build_teacher(one, checkpoint[name], allow_mismatch, f'{ONE}.{name}') for name, one in source.items()
    }


def check_apart(student: BaseModel, source: Any) -> None:
    """Checks that a teacher given as a model shares no weights with the student, which freezing it would freeze too.

    Raises a ``ValueError`` if one in ``source``, the ``teacher=`` of the algorithm, does.
    """
    own = {id(value): name for name, value in student.state_dict(keep_vars=True).items()}
    for one in source.values() if are_several(source) else (source,):
        weights = one.state_dict(keep_vars=True).items() if isinstance(one, BaseModel) else ()
        shared = [own[id(value)] for _, value in weights if id(value) in own]
        if shared:
            raise value_error(
                'teacher',
                'a model of its own, as it is frozen',
                'the student itself' if len(shared) == len(own) else f'one that shares {shared[0]} with the student',
                'Give a copy of it, copy.deepcopy(model), or a config with a checkpoint.',
            )


def are_several(source: Any) -> bool:
    """Whether ``teacher=`` is a dict of teachers rather than a config."""
    return (
        isinstance(source, dict)
        and bool(source)
        and not {'type', 'model'} & set(source)
        and all(isinstance(one, (str, os.PathLike, dict, BaseModel)) for one in source.values())
    )


def map_classes(names: dict | None, teachers: dict[str, BaseModel]) -> dict[str, ClassMap]:
    """The :class:`ClassMap` of each teacher, with the ``names`` in ``classes=`` of the algorithm.

    Raises:
        ValueError: Unknown keys; or see :class:`ClassMap`.
    """
    if names is not None and not isinstance(names, dict):
        raise value_error('classes', f'a dict with {", ".join(CLASSES)}', repr(names))
    names = dict(names or {})
    check_keys('classes', names, CLASSES)
    given = names.get('teacher')
    if not isinstance(given, dict):
        given = dict.fromkeys(teachers, given)
    for key, value in (('student', names.get('student')), *(('teacher', one) for one in given.values())):
        if not (value is None or isinstance(value, (tuple, list)) and all(isinstance(name, str) for name in value)):
            raise value_error(f'classes.{key}', 'a list of names', repr(value))
    aliases = names.get('aliases')
    if not isinstance({} if aliases is None else aliases, dict):
        raise value_error('classes.aliases', "a dict from the student's names to the teacher's", repr(aliases))
    return {
        name: ClassMap(
            names.get('student'), given.get(name) or getattr(teacher, 'class_names', None), names.get('aliases')
        )
        for name, teacher in teachers.items()
    }
