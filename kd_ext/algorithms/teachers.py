"""One teacher or several, by name, and whose classes they know."""

import os

from mmengine.model import BaseModel

from kd_ext.class_map import ClassMap
from kd_ext.messages import expected, near_matches
from .teacher import build_teacher

ONE = 'teacher'  # its name where there is only one
CLASSES = ('student', 'teacher', 'aliases')


def build_teachers(source, checkpoint, allow_mismatch=False):
    """Builds, loads and freezes one teacher or several.

    Args:
        source (str | dict | BaseModel | dict[str, ...]): See
            :func:`build_teacher`, or a dict of these by name.
        checkpoint (str | None | dict[str, str]): Likewise.
        allow_mismatch (bool): See :func:`build_teacher`.

    Returns:
        dict[str, BaseModel]

    Raises:
        ValueError: The names of teachers and checkpoints differ, or see
            :func:`build_teacher`.
    """
    if not are_several(source):
        if isinstance(checkpoint, dict):
            raise ValueError(expected(
                'teacher_ckpt', 'one path, as there is one teacher',
                repr(dict(checkpoint)), 'For several teachers give both by '
                'name: teacher=dict(a=..., b=...), teacher_ckpt=dict(a=..., '
                'b=...).'))
        return {ONE: build_teacher(source, checkpoint, allow_mismatch)}
    if not isinstance(checkpoint, dict) or set(checkpoint) != set(source):
        raise ValueError(expected(
            'teacher_ckpt', f'a dict with a path for each of '
            f'{", ".join(source)}', repr(checkpoint)))
    for name in source:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(expected(
                'the name of a teacher', 'an identifier', repr(name)))
    return {name: build_teacher(one, checkpoint[name], allow_mismatch,
                                f'{ONE}.{name}')
            for name, one in source.items()}


def are_several(source):
    """Whether ``teacher=`` is a dict of teachers, and not a config."""
    return (isinstance(source, dict) and bool(source)
            and not {'type', 'model'} & set(source)
            and all(isinstance(one, (str, os.PathLike, dict, BaseModel))
                    for one in source.values()))


def map_classes(names, teachers):
    """A :class:`ClassMap` for each teacher.

    Args:
        names (dict | None): ``classes=`` of the algorithm.
        teachers (dict[str, BaseModel]): As built.

    Raises:
        ValueError: Unknown keys, or see :class:`ClassMap`.
    """
    if names is not None and not isinstance(names, dict):
        raise ValueError(expected(
            'classes', f'a dict with {", ".join(CLASSES)}', repr(names)))
    names = dict(names or {})
    unknown = [key for key in names if key not in CLASSES]
    if unknown:
        raise ValueError(expected(
            'classes', f'a dict with {", ".join(CLASSES)}', repr(unknown[0]),
            near_matches(unknown[0], CLASSES)))
    given = names.get('teacher')
    if not isinstance(given, dict):
        given = dict.fromkeys(teachers, given)
    for key, value in (('student', names.get('student')),
                       *(('teacher', one) for one in given.values())):
        if not (value is None or isinstance(value, (tuple, list))
                and all(isinstance(name, str) for name in value)):
            raise ValueError(expected(f'classes.{key}', 'a list of names',
                                      repr(value)))
    aliases = names.get('aliases')
    if not isinstance({} if aliases is None else aliases, dict):
        raise ValueError(expected('classes.aliases', 'a dict from the '
                                  'student\'s names to the teacher\'s',
                                  repr(aliases)))
    return {name: ClassMap(names.get('student'), given.get(name) or getattr(
        teacher, 'class_names', None), names.get('aliases'))
        for name, teacher in teachers.items()}
