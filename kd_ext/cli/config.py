"""From the command line to the config of a run."""

import importlib.util
import os

from mmengine.config import Config
from mmengine.device import get_device

from kd_ext.build.configs import find_config
from kd_ext.build.extras import require_extra
from kd_ext.errors import expected

# settings of the algorithm, which a plain detector's model has none of
DISTILLS = tuple(f'model.{key}' for key in ('student', 'teacher', 'distill', 'classes', 'allow_teacher_mismatch'))


def load_config(args):
    """The config that the shared options describe, as mmdet's tools do.

    Raises:
        FileNotFoundError: No such config; the message lists near matches.
        ModuleNotFoundError: It is for an extra that is not installed.
    """
    path = find_config(args.config)
    cfg = Config.fromfile(path)
    require_extra(cfg.get('default_scope'))
    cfg.launcher = args.launcher
    later = distill_settings(args)
    cfg.merge_from_dict({key: value for key, value in (args.cfg_options or {}).items() if key not in later})
    if getattr(args, 'work_dir', None) is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', path.stem)
    return cfg


def distill_settings(args):
    """Those ``--cfg-options`` that are for what ``--teacher`` makes of a plain detector's config:
    ``model.distill.rcka.levels=...``."""
    if not getattr(args, 'teacher', None):
        return {}
    return {key: value for key, value in (args.cfg_options or {}).items() if key.startswith(DISTILLS)}


def enable_amp(cfg):
    """Mixed precision: float16 on a GPU, bfloat16 on a CPU."""
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
    # in the config, so that its dumped copy trains in other tools too
    cfg.setdefault('custom_imports', dict(imports=[]))
    imports = cfg.custom_imports.imports
    imports = [imports] if isinstance(imports, str) else list(imports)
    cfg.custom_imports.imports = [*imports, 'kd_ext.engine.amp']
    importlib.import_module('kd_ext.engine.amp')


def enable_lr_scaling(cfg):
    """Scales the learning rate by the real batch size."""
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
