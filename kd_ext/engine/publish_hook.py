"""Saves the trained student as a file that programs without kd_ext can read."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from kd_ext.build.detector import student_config
from kd_ext.engine.guarded_loading import read
from kd_ext.engine.whole_files import replacing, write_text
from kd_ext.registry import HOOKS

PREFIX = 'student_'
CONFIG = 'student.py'
INFERENCERS = dict(mmdet='DetInferencer', mmseg='MMSegInferencer')


@HOOKS.register_module()
class PublishStudentHook(Hook):
    """Writes the student beside the last and the best checkpoints at the end of a training.

    On torch >= 2.6, stock programs refuse MMEngine's checkpoints because of the log in them.
    ``student_<checkpoint>`` holds only the weights, the classes and the plain detector's config, so
    ``DetInferencer(weights=...)`` and mmdet's ``tools/test.py`` can read it. ``student.py`` holds the plain config
    from the start of the training on. ``tools/train.py`` adds this hook to every training that distills.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Writes the plain detector's config into the work dir."""
        text = plain_config(runner.cfg)
        if text and is_main_process():
            write_text(os.path.join(runner.work_dir, CONFIG), text)

    def after_train(self, runner: Runner) -> None:
        """Writes the files, and logs their names and a command that uses one."""
        if not is_main_process():
            return
        text = plain_config(runner.cfg)
        files = [publish(path, text) for path in _saved(runner)]
        if files and text:
            scope = runner.cfg.get('default_scope') or 'mmdet'
            name = INFERENCERS.get(scope, INFERENCERS['mmdet'])
            runner.logger.info(
                'The student alone, for programs that do not know kd_ext:\n'
                + ''.join(f'  {path}\n' for path in files)
                + f'Score it: python tools/test.py {os.path.join(runner.work_dir, CONFIG)} {files[-1]}'
                f' (tools/test.py of {scope})\n'
                f'Use it: python -c "from {scope}.apis import {name}; {name}(weights={files[-1]!r})(\'IMAGE.jpg\')"'
            )


def publish(path: str, config: str = '') -> str:
    """Writes ``student_<name>`` beside a checkpoint of a plain detector, whose config has this text.

    Returns the path of the new file. ``torch.load(..., weights_only=True)`` reads it on every torch.
    """
    checkpoint = read(path, 'cpu')
    state = OrderedDict(checkpoint['state_dict'])
    # _metadata keeps module versions and loses the distiller's state
    versions = getattr(checkpoint['state_dict'], '_metadata', {})
    state._metadata = OrderedDict(  # type: ignore[attr-defined]  # as torch does
        (name, {'version': one['version']}) for name, one in versions.items() if 'version' in one
    )
    meta = {key: _plain(checkpoint['meta'].get(key)) for key in ('dataset_meta', 'epoch', 'iter')}
    new = Path(path).with_name(PREFIX + Path(path).name)
    with replacing(new) as part:
        torch.save(dict(meta=dict(meta, cfg=config) if config else meta, state_dict=state), part)
    return str(new)


def plain_config(cfg: Config) -> str:
    """Text of the plain student's config without kd_ext; empty if the student was given as a module."""
    model = cfg.get('model')
    if not isinstance(model, dict) or isinstance(model.get('student'), torch.nn.Module):
        return ''
    cfg = student_config(cfg).copy()
    cfg.update(load_from=None, resume=False)
    imports = (cfg.pop('custom_imports', None) or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else imports
    kept = [name for name in imports if name.partition('.')[0] != 'kd_ext']
    if kept:
        cfg.custom_imports = dict(imports=kept)
    return cfg.pretty_text


def _saved(runner: Runner) -> list[str]:
    """The last and the best checkpoints on the local disk."""
    found = []
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            best = [getattr(hook, 'best_ckpt_path', None), *getattr(hook, 'best_ckpt_path_dict', {}).values()]
            found += [getattr(hook, 'last_ckpt', None), *best]
    return [path for path in dict.fromkeys(found) if path and os.path.isfile(path)]


def _plain(value: Any) -> Any:
    """Converts to types that ``weights_only`` accepts."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list, set)):
        return [_plain(one) for one in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) else value
