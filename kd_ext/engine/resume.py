"""Chooses an existing, undamaged checkpoint to resume a training from."""

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

# checkpoints with optimizer state, which best_*.pth lacks
NAMES = re.compile(r'(epoch_\d+|iter_\d+|interrupted)\.pth')
KEYS = ('meta', 'state_dict', 'message_hub')


def choose_checkpoint(cfg: Config) -> None:
    """Chooses the checkpoint to resume from, before anything is built.

    A file that the user named must be undamaged. Otherwise ``last_checkpoint`` in the work dir names the file. If
    that is damaged or missing, the undamaged checkpoint with the most iterations replaces it, and stderr says so.
    A work dir without checkpoints starts from scratch, as in MMEngine.

    If the config has no seed, the checkpoint's is used; MMEngine would draw another and shuffle the data
    differently.

    Args:
        cfg: With ``resume`` set; may get ``load_from`` and ``randomness.seed``.

    Raises:
        ValueError: The named file is damaged, or every checkpoint in the work dir is.
    """
    named = cfg.get('load_from')
    if '://' in (named or ''):
        return
    path = named or last_checkpoint(cfg.work_dir)
    fault = None if path is None else fault_of(path)
    if path is None or fault:
        other = furthest([cfg.work_dir, *([os.path.dirname(path)] if path else [])])
        if fault and (named or other is None):
            rule = 'a checkpoint that is whole'
            remedy = f'The furthest that is whole: {other}' if other else 'Start anew, without --resume.'
            raise value_error('--resume', rule, f'{path!r} ({fault})' + ('' if other else ' and no other'), remedy)
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
    """The rank that the launcher set, known before torch.distributed starts."""
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        if os.environ.get(name, '').isdigit():
            return int(os.environ[name])
    return 0


def last_checkpoint(work_dir: str) -> str | None:
    """The path in the work dir's ``last_checkpoint``, or None."""
    try:
        name = (Path(work_dir) / 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name or None


def fault_of(path: str | os.PathLike) -> str | None:
    """Why a training cannot resume from a file, in words; None if it can.

    Reads the whole file. What ``torch.load`` refuses as unsafe does not count as damage; loading it will report
    that.
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
    """Path of the undamaged checkpoint with the most iterations, or None."""
    found: set[tuple[int, float, str]] = set()
    for folder in folders:
        for path in Path(folder or '.').glob('*.pth'):
            if NAMES.fullmatch(path.name):
                try:
                    found.add((_read(path)['meta']['iter'], path.stat().st_mtime, str(path)))
                except Exception:  # damaged
                    continue
    return next((path for *_, path in sorted(found, reverse=True) if fault_of(path) is None), None)


def _read(path: str | os.PathLike) -> Any:
    return read(path, 'cpu', mmap=True)


def _keep_seed(cfg: Config, path: str) -> None:
    settings = dict(cfg.get('randomness') or {})
    seed = _read(path)['meta'].get('seed')
    if settings.get('seed') is None and seed is not None:
        cfg.randomness = dict(settings, seed=seed)
