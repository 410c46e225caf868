"""What a training goes on from: a checkpoint that is there, and whole."""

import os
import re
import sys
import zipfile
from pathlib import Path

from kd_ext.engine.guarded_loading import read
from kd_ext.errors import expected, value_error

# those with an optimizer; best_*.pth has none
NAMES = re.compile(r'(epoch_\d+|iter_\d+|interrupted)\.pth')
KEYS = ('meta', 'state_dict', 'message_hub')


def choose_checkpoint(cfg):
    """Looks at what a training is to be resumed from, before it is built.

    A file that was named has to be whole. Without one it is the file that ``last_checkpoint`` in the work dir
    names; where that is damaged or gone, the furthest one of the work dir that is whole takes its place, and this
    is said. A work dir without any checkpoint starts anew, as in MMEngine.

    Where the config gives no seed, that of the checkpoint is set: MMEngine would shuffle the data by another one.

    Args:
        cfg (Config): With ``resume`` set; ``load_from`` and ``randomness.seed`` may be changed.

    Raises:
        ValueError: The named file is damaged, or all of the work dir are.
    """
    if '://' in (cfg.get('load_from') or ''):
        return
    work_dir = cfg.work_dir
    path = cfg.get('load_from') or last_checkpoint(work_dir)
    folders = [work_dir, *([os.path.dirname(path)] if path else [])]
    fault = None if path is None else fault_of(path)
    if cfg.get('load_from'):
        if fault:
            other = furthest(folders)
            raise value_error(
                '--resume',
                'a checkpoint to go on from',
                f'{path!r} ({fault})',
                f'The furthest that is whole: {other}' if other else 'Start anew, without --resume.',
            )
    elif path is None or fault:
        other = furthest(folders)
        if other is None and fault:
            raise value_error(
                '--resume',
                'of a work dir with a checkpoint that is whole',
                f'{path!r} ({fault}) and no other',
                'Start anew, without --resume.',
            )
        if other and rank() == 0:
            print(
                expected(
                    f'last_checkpoint in {work_dir}',
                    'the name of a checkpoint that is whole',
                    'none' if path is None else f'{path!r} ({fault})',
                    f'Going on from {other}.',
                ),
                file=sys.stderr,
            )
        path = cfg.load_from = other
    if path is not None:
        _keep_seed(cfg, path)


def rank():
    """The rank that the launcher gave, known before torch.distributed is."""
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        if os.environ.get(name, '').isdigit():
            return int(os.environ[name])
    return 0


def last_checkpoint(work_dir):
    """The path in the file of that name, or None."""
    try:
        name = (Path(work_dir) / 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name or None


def fault_of(path):
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


def furthest(folders):
    """Path of the whole checkpoint with most iterations, or None."""
    found = set()
    for folder in folders:
        for path in Path(folder or '.').glob('*.pth'):
            if NAMES.fullmatch(path.name):
                try:
                    content = _read(path)
                    key = content['meta']['iter'], path.stat().st_mtime
                except Exception:  # damaged in one way or another
                    continue
                found.add((*key, str(path)))
    return next((path for *_, path in sorted(found, reverse=True) if fault_of(path) is None), None)


def _read(path):
    # mapped: its tensors stay on the disk
    return read(path, 'cpu', mmap=True)


def _keep_seed(cfg, path):
    settings = dict(cfg.get('randomness') or {})
    seed = _read(path)['meta'].get('seed')
    if settings.get('seed') is None and seed is not None:
        cfg.randomness = dict(settings, seed=seed)
