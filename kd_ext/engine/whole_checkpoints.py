"""Checkpoints that survive a kill or a full disk.

MMEngine 0.10 writes a checkpoint in place, so a job killed meanwhile leaves half a file under the name that
resuming looks for. It also removes the files that ``max_keep_ckpts`` and ``save_best`` no longer keep before it
writes the next one, so a full disk may leave none. With :func:`install` a checkpoint is written under another name
and then moved, and old files are removed afterwards. The disk has to hold one more checkpoint.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Callable

from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook

from kd_ext.engine.whole_files import replacing


def install() -> None:
    """Patches MMEngine's local file backend and its CheckpointHook; further calls change nothing."""
    if hasattr(LocalBackend.put, '__wrapped__'):
        return
    LocalBackend.put = _put_whole(LocalBackend.put)
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(CheckpointHook, name, _removing_last(getattr(CheckpointHook, name)))


def _put_whole(put: Callable) -> Callable:
    @functools.wraps(put)
    def put_whole(self: LocalBackend, obj: bytes, filepath: str | os.PathLike) -> None:
        if os.path.exists(filepath) and not os.path.isfile(filepath):
            put(self, obj, filepath)  # into a device or a pipe, as MMEngine does
            return
        os.makedirs(os.path.dirname(os.path.abspath(filepath)), exist_ok=True)
        with replacing(filepath) as part:
            put(self, obj, part)

    return put_whole


def _removing_last(save: Callable) -> Callable:
    @functools.wraps(save)
    def save_first(self: CheckpointHook, *args: Any, **kwargs: Any) -> None:
        backend = getattr(self, 'file_backend', None)
        if backend is None:  # validates without having trained: saves nothing
            save(self, *args, **kwargs)
            return
        self.file_backend = later = _RemoveLater(backend)
        try:
            save(self, *args, **kwargs)
        finally:
            self.file_backend = backend
        kept = {
            getattr(self, 'last_ckpt', None),
            getattr(self, 'best_ckpt_path', None),
            *getattr(self, 'best_ckpt_path_dict', {}).values(),
        }
        for remove, path in later.removals:
            if path not in kept:
                remove(path)

    return save_first


class _RemoveLater:
    """A file backend that collects the files to remove instead of removing them."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.removals = backend, []  # type: Any, list[tuple[Callable, str]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.removals.append((self._backend.rmtree, path))
