"""Chooses the checkpoint that a training is resumed from: one that exists and is whole."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Iterable

from mmengine.config import Config

from kd_ext.engine.guarded_loading import read
from kd_ext.errors import expected, value_error

# checkpoints with an optimizer; best_*.pth has none
NAMES = re.compile(r'(epoch_\d+|iter_\d+|interrupted)\.pth')
KEYS = ('meta', 'state_dict', 'message_hub')


def choose_checkpoint(cfg: Config) -> None:
    """Looks at what a training is to be resumed from, before anything is built.

    A file that the user named has to be whole. Otherwise the file that ``last_checkpoint`` in the work dir names is
    taken; where that one is damaged or gone, the whole checkpoint with most iterations takes its place, and a line
    on stderr says so. A work dir without any checkpoint starts anew, as in MMEngine.

    Where the config gives no seed, that of the checkpoint is set: MMEngine would shuffle the data by another one.

    Args:
        cfg: With ``resume`` set; ``load_from`` and ``randomness.seed`` may be changed.

    Raises:
        ValueError: The named file is damaged, or every checkpoint of the work dir is.
    """
    named = cfg.get('load_from')
    if '://' in (named or ''):
        return
    path = named or last_checkpoint(cfg.work_dir)
    fault = None if path is None else fault_of(path)
    if path is None or fault:
        other = furthest([cfg.work_dir, *([os.path.dirname(path)] if path else [])])
        if fault and (named or other is None):
            raise value_error(
                '--resume',
                'a checkpoint that is whole',
                f'{path!r} ({fault})' + ('' if other else ' and no other'),
                f'The furthest that is whole: {other}' if other else 'Start anew, without --resume.',
            )
        if other and rank() == 0:
            print(
                expected(
                    f'last_checkpoint in {cfg.work_dir}',
                    'the name of a checkpoint that is whole',
                    'none' if path is None else f'{path!r} ({fault})',
                    f'Going on from {other}.',
                ),
                file=sys.stderr,
            )
        path = cfg.load_from = other
    if path is not None:
        _keep_seed(cfg, path)


def rank() -> int:
    """The rank that the launcher gave, known before torch.distributed is."""
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        if os.environ.get(name, '').isdigit():
            return int(os.environ[name])
    return 0


def last_checkpoint(work_dir: str) -> str | None:
    """The path in the file of that name, or None."""
    try:
        name = (Path(work_dir) / 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name or None


def fault_of(path: str | os.PathLike) -> str | None:
    """Why training cannot go on from a file, in words, or None.

    All of it is read. What ``torch.load`` refuses as unsafe is no damage: reading it again says so.
    """
    if not os.path.exists(path):
        return 'no such file'
    if os.path.isdir(path):
        return 'a folder'
    if not os.path.getsize(path):
        return 'an empty file'
    if not zipfile.is_zipfile(path):
        return 'cut short, or no checkpoint'
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)
    if damaged:
        return f'damaged at {damaged}'
    missing = [key for key in KEYS if key not in _read(path)]
    return f'it holds no {", ".join(missing)}' if missing else None


def furthest(folders: Iterable[str]) -> str | None:
    """Path of the whole checkpoint with most iterations, or None."""
    found: set[tuple[int, float, str]] = set()
    for folder in folders:
        for path in Path(folder or '.').glob('*.pth'):
            if NAMES.fullmatch(path.name):
                try:
                    found.add((_read(path)['meta']['iter'], path.stat().st_mtime, str(path)))
                except Exception:  # damaged in one way or another
                    continue
    return next((path for *_, path in sorted(found, reverse=True) if fault_of(path) is None), None)


def _read(path: str | os.PathLike) -> Any:
    return read(path, 'cpu', mmap=True)


def _keep_seed(cfg: Config, path: str) -> None:
    settings = dict(cfg.get('randomness') or {})
    seed = _read(path)['meta'].get('seed')
    if settings.get('seed') is None and seed is not None:
        cfg.randomness = dict(settings, seed=seed)
