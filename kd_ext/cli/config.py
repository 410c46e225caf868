"""Makes the config of a run from the command line."""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from kd_ext.build.configs import distills, find_config, read_config
from kd_ext.build.extras import require_extra
from kd_ext.cli.data_check import check_checkpoint
from kd_ext.errors import expected, file_error, value_error
from kd_ext.recipes import distill_config

# settings that only a distillation's model has
DISTILLS = tuple(f'model.{key}' for key in ('student', 'teacher', 'distill', 'classes', 'allow_teacher_mismatch'))


def load_config(
    name: str, options: dict[str, Any] | None = None, launcher: str = 'none', work_dir: str | None = None
) -> Config:
    """Reads a config and applies the shared options, as mmdet's tools do.

    Relative paths in ``student``, ``teacher`` and ``teacher_ckpt`` are looked up in the working directory, then in
    the folder of the config.

    Args:
        name: Path or ``pkg::name``.
        options: ``--cfg-options``.
        launcher: ``--launcher``.
        work_dir: ``--work-dir``.

    Raises:
        FileNotFoundError: No such config; the message lists near matches.
        ModuleNotFoundError: It needs an extra that is not installed.
        ValueError: The config cannot be read, or an option does not fit it.
    """
    path = find_config(name)
    cfg = read_config(name)
    require_extra(cfg.get('default_scope'))
    cfg.launcher = launcher
    merge_options(cfg, options or {})
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', path.stem)
    if distills(cfg.get('model')):
        for key in ('student', 'teacher', 'teacher_ckpt'):
            if cfg.model.get(key):
                cfg.model[key] = _found(cfg.model[key], path.parent.resolve())
    return cfg


def _found(value: Any, folder: Path) -> Any:
    """Makes a relative path absolute if only the config's folder has it; of several teachers, each path."""
    if isinstance(value, dict) and not {'type', 'model'} & set(value):
        return {name: _found(one, folder) for name, one in value.items()}
    if isinstance(value, str) and '::' not in value and not os.path.exists(value) and (folder / value).is_file():
        return str(folder / value)
    return value


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merges ``--cfg-options`` into a config; raises a ``ValueError`` if a key does not fit it."""
    for key, value in options.items():
        try:
            cfg.merge_from_dict({key: value})
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            text = str(error.args[0]) if error.args else str(error)
            raise value_error(
                '--cfg-options', 'settings that the config can take', f'{key}={value} ({text})'
            ) from error


def training_config(args: argparse.Namespace) -> Config:
    """The config for ``train`` and ``check``, with ``--teacher``, ``--teacher-ckpt`` and ``--distill`` applied.

    ``--cfg-options`` change the plain config first. Those for keys that only a distillation has
    (``model.distill.rcka.levels``) are applied afterwards. Without ``--work-dir`` a distillation gets a work dir
    of its own.

    Raises:
        ValueError: An option lacks another that it needs.
        FileNotFoundError: The teacher's config or checkpoint does not exist.
    """
    options = args.cfg_options or {}
    later = {key: value for key, value in options.items() if args.teacher and key.startswith(DISTILLS)}
    options = {key: value for key, value in options.items() if key not in later}
    cfg = load_config(args.config, options, args.launcher, args.work_dir)
    if not (args.teacher or args.teacher_ckpt or args.distill):
        return cfg
    for value, option in ((args.teacher, '--teacher'), (args.teacher_ckpt, '--teacher-ckpt')):
        if not value:
            raise value_error(
                option,
                'given as well',
                'none',
                'A distillation takes --teacher CONFIG --teacher-ckpt WEIGHTS [--distill METHOD ...].',
            )
    find_config(args.teacher, '--teacher')
    check_checkpoint('--teacher-ckpt', args.teacher_ckpt)
    weights = args.teacher_ckpt
    if os.path.exists(weights):  # the dumped config may be used elsewhere
        weights = os.path.abspath(weights)
    methods = args.distill or ['rcka']
    distill_config(cfg, args.teacher, weights, methods)
    merge_options(cfg, later)
    if args.work_dir is None:
        names = '-'.join(method.partition(':')[0] for method in methods)
        folder = Path(cfg.work_dir)
        cfg.work_dir = str(folder.with_name(f'{names}_{folder.name}'))
    return cfg


def make_folder(path: str, name: str = 'work_dir') -> Path:
    """Makes a folder for results, with its parents; raises a ``FileNotFoundError`` if it cannot be written to."""
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise file_error(
            name, 'a folder that can be written to', f'{path!r} ({reason})', 'Choose another with --work-dir or --out.'
        ) from error
    return Path(path)


def enable_amp(cfg: Config) -> None:
    """Enables mixed precision: float16 on a GPU, bfloat16 on a CPU."""
    if cfg.get('optim_wrapper') is None:
        raise KeyError(
            expected(
                'optim_wrapper',
                'in the config for --amp',
                'none',
                'Add optim_wrapper=dict(optimizer=...) or leave --amp out.',
            )
        )
    if get_device() != 'cpu':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
        return
    cfg.optim_wrapper.type = 'kd_ext.CPUAmpOptimWrapper'
    for key in ('loss_scale', 'use_fsdp', 'dtype'):
        cfg.optim_wrapper.pop(key, None)
    # imported by the config, so that its dumped copy trains in other tools too
    cfg.setdefault('custom_imports', dict(imports=[]))
    imports = cfg.custom_imports.imports
    imports = [imports] if isinstance(imports, str) else list(imports)
    cfg.custom_imports.imports = [*imports, 'kd_ext.engine.amp']
    importlib.import_module('kd_ext.engine.amp')


def enable_lr_scaling(cfg: Config) -> None:
    """Enables scaling of the learning rate by the real batch size."""
    scaling = cfg.get('auto_scale_lr') or {}
    if not {'enable', 'base_batch_size'} <= set(scaling):
        raise KeyError(
            expected(
                'auto_scale_lr',
                'a dict with enable and base_batch_size for --auto-scale-lr',
                repr(dict(scaling)),
                'Add auto_scale_lr=dict(enable=False, base_batch_size=16) to the config.',
            )
        )
    cfg.auto_scale_lr.enable = True
