"""What a training takes over from the checkpoint of another one, and a look-up of its runner."""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import FlexibleRunner, Runner
from torch import Tensor

from kd_ext.algorithms.distiller import Distiller
from kd_ext.class_means.running import OnlineClassMeans
from kd_ext.errors import value_error

SHARES = r'^(train/)?distill\.share_'
REMEDY = (
    'Resume with the entries that it was trained with, or start a new training from its weights: load_from=CHECKPOINT '
    'without --resume.'
)


def calling_runner(method: str | None = None) -> Any:
    """The MMEngine runner that is calling, in ``method`` if given, or None.

    A model gets no reference to its runner and cannot tell resuming from loading weights. So the runner is looked
    up on the call stack.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if method in (None, frame.f_code.co_name):
            owner = frame.f_locals.get('self')
            if isinstance(owner, (Runner, FlexibleRunner)):
                return owner
        frame = frame.f_back  # type: ignore[assignment]  # None ends the stack
    return None


def average_shares(runner: Any) -> None:
    """Makes the logger average ``distill.share_*`` over the same window as the losses."""
    processor: Any = getattr(runner, 'log_processor', None)
    pattern = getattr(processor, 'mean_pattern', None)
    if pattern is not None and SHARES not in pattern.pattern:
        processor.mean_pattern = re.compile(f'{pattern.pattern}|{SHARES}')


def describe_run(distiller: Distiller, teachers: dict[str, str]) -> dict[str, dict[str, str]]:
    """A training's description in its checkpoint: its entries, and digests of the class means' teachers."""
    entries = {name: f'{type(term.loss).__name__} at {term.key}' for name, term in distiller.terms.items()}
    return dict(entries=entries, teachers=teachers)


def taken_over(
    distiller: Distiller, own_run: dict, saved: dict[str, Tensor] | None, run: dict | None
) -> dict[str, Tensor]:
    """The distiller's state after loading.

    Resuming restores all of it. Otherwise class means of a file stay as configured, and running means are taken
    over only from a training with the same teacher.

    Args:
        distiller, own_run: As configured, and its :func:`describe_run`.
        saved: State in the checkpoint; None if it is a plain student's.
        run: The checkpoint's description; None in an old one.

    Raises:
        ValueError: The run is to be resumed, but was trained with other entries.
    """
    own = distiller.state_dict()
    resuming = calling_runner('resume') is not None
    if saved is None:
        if resuming:
            raise value_error('the checkpoint to resume', 'of a distilled training', 'one of a plain training', REMEDY)
        return own
    difference = _difference(own, own_run, saved, run)
    if resuming and difference:
        raise value_error('the checkpoint to resume', f'of a training with {_entries(own_run)}', difference, REMEDY)
    if difference:
        print_log(f'distill: the checkpoint is {difference}; the rest of its state is taken over', 'current')
    teachers = (run or {}).get('teachers', {})
    kept = set()
    for name, means in distiller.class_means.items():
        keys = [f'class_means.{name}.{key}' for key in means.state_dict()]
        if isinstance(means, OnlineClassMeans):
            role = distiller.online[name][0]
            if teachers.get(role) == own_run['teachers'][role]:
                continue
            text = 'running class means start anew: those in the checkpoint are of another teacher'
        else:
            text = 'class means of the file are kept: the checkpoint has others'
        if not all(key in saved and torch.equal(saved[key].cpu(), own[key].cpu()) for key in keys):
            if resuming:
                text = 'class means are restored, but this training has others'
            print_log(f'distill: {name}: {text}', 'current', 30)
        kept.update(keys)
    if resuming:
        return saved
    fitting = {key: value for key, value in saved.items() if key in own and own[key].shape == value.shape}
    return OrderedDict(own, **{key: value for key, value in fitting.items() if key not in kept})


def _entries(run: dict) -> str:
    return ', '.join(f'{name} ({kind})' for name, kind in run['entries'].items()) or 'no entries'


def _difference(own: dict[str, Tensor], own_run: dict, saved: dict[str, Tensor], run: dict | None) -> str:
    """How the entries of a checkpoint differ, in words; empty if they do not."""
    if run is not None and run['entries'] != own_run['entries']:
        return f'one with {_entries(run)}'
    other = {key for key in own.keys() | saved.keys() if key not in own or key not in saved}
    other |= {key for key in own.keys() - other if own[key].shape != saved[key].shape}
    names = sorted({'.'.join(key.split('.')[:2]) for key in other})
    return f'one with other parameters in {", ".join(names)}' if names else ''
