"""Checks that the files of a config exist, before a model is built."""

import json
import os
import re
from pathlib import Path

from kd_ext.data.unwrap import unwrap
from kd_ext.errors import Message, expected, file_error, near_matches

WEIGHTS = ('.pth', '.pt', '.ckpt')


def check_data(cfg, splits):
    """Checks the local paths of the data sets and metrics of ``splits``.

    Args:
        cfg (Config): Config of the run.
        splits (Sequence[str]): Of ``train``, ``val`` and ``test``.

    Raises:
        FileNotFoundError: Files are missing; one line each, with the key in the config.
    """
    problems = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for part in unwrap(loader.get('dataset'), f'{split}_dataloader.dataset'):
            problems += _dataset_problems(part.key, part.config)
        evaluator = f'{split}_evaluator'
        for key, metric in _metrics(evaluator, cfg.get(evaluator)):
            if not _is_remote(metric):
                problems += _missing(f'{key}.ann_file', metric.get('ann_file'))
    if problems:
        raise FileNotFoundError(Message('\n'.join(dict.fromkeys(problems))))


def check_checkpoint(name, path):
    """Checks that a checkpoint exists, if it is a local path."""
    if path is None or _is_url(path) or os.path.exists(path):
        return
    folder = os.path.dirname(path) or '.'
    there = sorted(file.name for file in Path(folder).glob('*') if file.suffix in WEIGHTS)
    remedy = (
        f'In {folder}: {near_matches(os.path.basename(path), there)}'
        if there
        else f'There is no checkpoint in {folder}.'
    )
    raise file_error(name, 'an existing file or a URL', repr(path), remedy)


def _metrics(key, evaluator):
    """The metric configs of an evaluator, with their keys."""
    if isinstance(evaluator, (list, tuple)):
        for index, metric in enumerate(evaluator):
            yield from _metrics(f'{key}.{index}', metric)
    elif isinstance(evaluator, dict):
        yield key, evaluator
        yield from _metrics(f'{key}.metrics', evaluator.get('metrics'))


def _dataset_problems(key, dataset):
    if _is_remote(dataset):
        return []
    root = dataset.get('data_root') or ''
    problems = _missing(f'{key}.ann_file', dataset.get('ann_file'), root=root, root_key=f'{key}.data_root')
    prefixes = dataset.get('data_prefix')
    for name, path in (prefixes or {}).items():
        problems += _missing(f'{key}.data_prefix.{name}', path, folder=True, root=root, root_key=f'{key}.data_root')
    return problems


def _missing(key, path, folder=False, root='', root_key=None):
    """A list with a message if the path is missing or unusable, else an empty list."""
    if not isinstance(path, str) or _is_url(path) or _is_url(root):
        return []
    under_root = bool(root) and not os.path.isabs(path)
    full = os.path.join(root, path) if under_root else path
    if not path and not (folder and under_root):  # the config reads no file here
        return []
    if os.path.isdir(full) if folder else os.path.isfile(full):
        fault = '' if folder else _fault(full)
        return [expected(key, 'a file with annotations', f'{full!r} ({fault})')] if fault else []
    if under_root and not os.path.isdir(root):
        key, full, folder = root_key, root, True
    rule = f'an existing {"folder" if folder else "file"}'
    return [expected(key, rule, repr(full), _remedy(key, full))]


def _fault(path):
    """What is obviously wrong with an annotation file; empty if nothing is."""
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1000, 0))
        end = file.read().strip()
        if not end:
            return 'an empty file'
        if not path.endswith('.json'):
            return ''
        if end[-1:] not in b'}]':
            return 'cut short'
        file.seek(0)
        try:  # parsing a large file takes seconds, and it has images
            content = json.load(file) if size < 1e5 else {}
        except ValueError as error:
            return str(error)
    nothing = isinstance(content, dict) and content.get('images') == []
    return 'no images' if nothing else ''


def _remedy(key, path):
    parent, name = os.path.split(path.rstrip('/'))
    parent = parent or '.'
    hint = f'There is no folder {parent} either. '
    if os.path.isdir(parent):
        near = near_matches(name, sorted(os.listdir(parent)))
        # a folder's other files only help if their names are similar
        hint = f'In {parent}: {near} ' if near.startswith('Did') else ''
    return f'{hint}Set it with --cfg-options {key}=PATH or in the config.'


def _is_url(path):
    return bool(re.match(r'\w[\w+.-]*:(//|s3:)', path))


def _is_remote(cfg):
    """Whether the files are not on a local disk (petrel, http, lmdb)."""
    backend = cfg.get('backend_args') or cfg.get('file_client_args') or {}
    return backend.get('backend', 'local') not in ('local', 'disk')
