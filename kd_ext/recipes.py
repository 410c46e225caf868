"""Distillation by name: from ``rcka`` or ``nd:1.5`` to entries of ``distill``.

    cfg = Config.fromfile('retinanet_r18_fpn_1x_coco.py')
    kd_ext.distill_config(cfg, teacher='mmdet::retinanet/retinanet_r101_...',
                          teacher_ckpt='r101.pth', methods=['rcka', 'nd:1.5'])

The entries are the files of ``configs/_base_/distill``, which configs use as well: a new file is a new method.
"""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from kd_ext.errors import file_error, is_number, near_matches, type_error, value_error

if TYPE_CHECKING:
    from mmengine.config import Config

PARTS = Path(__file__).parent / '.mim' / 'configs' / '_base_' / 'distill'
# a method by name alone chooses its weight in the first steps of a training:
# the share of the task loss that it then has
SHARES = {'rcka': 3.0}
SHARE, STEPS = 1.0, 100
# methods of several entries
COMBINATIONS = {'kd++': ('kd', 'nd'), 'reviewkd++': ('reviewkd', 'nd')}


def methods_in(folder: Path) -> dict[str, tuple[str, ...]]:
    """The entries of each method: one per config in ``folder``, plus combinations."""
    single = {path.stem: (path.stem,) for path in sorted(folder.glob('*.py'))}
    return {**single, **{name: parts for name, parts in COMBINATIONS.items() if {*parts} <= {*single}}}


METHODS = methods_in(PARTS)


@functools.cache
def _part(name: str) -> dict[str, Any]:
    from mmengine.config import Config  # imported late, as METHODS alone must be quick

    return Config.fromfile(part(name))[name].to_dict()


def part(name: str) -> str:
    """The path of ``configs/_base_/distill/<name>.py``, for a ``_base_`` that other programs read too.

    Other programs resolve ``'kd_ext::_base_/distill/rcka.py'`` only after importing kd_ext.
    ``__import__('kd_ext').part('rcka')`` does that.

    Raises:
        FileNotFoundError: There is no such entry.
    """
    path = PARTS / f'{name}.py'
    if not path.is_file():
        remedy = near_matches(name, METHODS) if METHODS else 'Install the package again: pip install -e .'
        raise file_error('a part of kd_ext', 'one of its configs', f'no {path}', remedy)
    return str(path)


def distill_entries(methods: Sequence[str], choose_weights: bool = False) -> dict[str, dict[str, Any]]:
    """The ``distill`` entries of methods by name.

    Args:
        methods: ``'rcka'``, ``'rcka:0.5'`` for half the published weight, or ``'rcka@big'`` for one of several
            teachers, which names the entry ``rcka_big``.
        choose_weights: Whether methods without a factor choose their weights in the first steps of the training,
            see ``balance`` in :class:`kd_ext.terms.weighting.Weighting`; otherwise they have the published ones.

    Raises:
        ValueError: A method is unknown or named twice, or a factor is not a number > 0.
    """
    if not isinstance(methods, (tuple, list)) or not methods:
        raise value_error('methods', 'a list of at least one method', repr(methods), f'Known: {", ".join(METHODS)}.')
    entries: dict[str, dict[str, Any]] = {}
    for method in methods:
        rest, _, teacher = str(method).partition('@')
        name, _, factor = rest.partition(':')
        if name not in METHODS:
            known, near = ', '.join(METHODS), near_matches(name, METHODS)
            raise value_error('a distillation method', f'one of {known}', repr(name), near)
        for part in METHODS[name]:
            key = f'{part}_{teacher}' if teacher else part
            if key in entries:
                held = ', '.join(f'{name} holds {" and ".join(parts)}' for name, parts in COMBINATIONS.items())
                rule, found = 'without a term twice', f'{key} again in {method!r}'
                raise value_error('methods', rule, found, f'Name each once; {held}.')
            entries[key] = copy.deepcopy(_part(part))
            loss = entries[key].get('loss', entries[key])
            loss['loss_weight'] = loss.get('loss_weight', 1.0) * _factor(method, factor)
            if choose_weights and not factor:
                entries[key]['balance'] = dict(share=SHARES.get(part, SHARE), steps=STEPS)
            if teacher:
                entries[key]['teacher'] = teacher
    return entries


def _factor(method: str, text: str) -> float:
    try:
        value = float(text or 1)
    except ValueError:
        value = float('nan')
    if not is_number(value) or value <= 0:
        remedy = 'It multiplies the published weight: rcka:0.5. Leave a method out to do without it.'
        raise value_error(f'the factor of {method!r}', 'a number > 0', repr(text), remedy)
    return value


def distill_config(
    cfg: Config,
    teacher: str | os.PathLike | Mapping[str, str | os.PathLike],
    teacher_ckpt: str | Mapping[str, str],
    methods: Sequence[str] = ('rcka',),
) -> Config:
    """Makes a config distill into its own model; changes it in place and returns it.

    It also writes the class names of the training data into the config, so that a teacher with other classes is
    mapped by name.

    Args:
        cfg: Config of a detector; its model becomes the student.
        teacher: Config path or ``pkg::config`` of the teacher, or a dict of several by name.
        teacher_ckpt: Path or URL of its weights, or a dict by name.
        methods: See :func:`distill_entries`. Methods without a factor choose their weights.

    Raises:
        TypeError: A teacher is not a path.
        ValueError: The config distills already, or has no model.
    """
    from mmengine.config import Config

    from kd_ext.build.configs import distills

    model = cfg.get('model') if isinstance(cfg, Config) else None
    if not isinstance(model, dict) or 'type' not in model:
        raise value_error('config', 'a Config of a detector, with a model', repr(model))
    if distills(model):
        remedy = 'Train it as it is, or name the config of its student.'
        raise value_error('config', 'one of a plain detector', 'one that distills already', remedy)
    several = isinstance(teacher, Mapping) and teacher
    found = {name: _path(one) for name, one in several.items()} if several else _path(teacher)
    entries = distill_entries(methods, choose_weights=True)
    names = _class_names(cfg)
    cfg.model = dict(
        type='kd_ext.DetectionDistill',
        student=cfg.model.to_dict(),
        teacher=found,
        teacher_ckpt=teacher_ckpt,
        distill=entries,
    )
    if names:
        cfg.model.classes = dict(student=names)
    return cfg


def _path(teacher: Any) -> str:
    """A teacher's config, as a path that works from any folder."""
    if not teacher:
        raise value_error(
            'teacher', 'a config path or pkg::config', repr(teacher), 'Say --teacher CONFIG --teacher-ckpt WEIGHTS.'
        )
    if not isinstance(teacher, (str, os.PathLike)):
        remedy = "Save a config with cfg.dump('teacher.py') and name that file."
        raise type_error('teacher', 'a config path or pkg::config', f'a {type(teacher).__name__}', remedy)
    teacher = os.fspath(teacher)
    if '::' not in teacher and os.path.isfile(teacher):
        return os.path.abspath(teacher)
    return teacher


def _class_names(cfg: Config) -> list[str] | None:
    """Class names of the training data, or None."""
    from kd_ext.data.labelled import class_names

    return class_names(cfg) if cfg.get('train_dataloader') else None
