"""Files are there as a whole or not at all, and the old one goes last.

MMEngine 0.10 writes a checkpoint in place, so that a job killed meanwhile leaves half a file under the name that
resuming looks for. And it removes the files that ``max_keep_ckpts`` and ``save_best`` no longer keep before it
writes the next one, so that a full disk may leave none. With :func:`install` a file is written beside its place
and moved there, and removed is what is to go when the new one is there: the disk has to hold one checkpoint more.
"""

import contextlib
import functools
import os

from kd_ext.errors import expected

SAVES = ('_save_checkpoint_with_step', '_save_best_checkpoint')


def install():
    """Changes MMEngine's local files and its CheckpointHook, once."""
    from mmengine.fileio import LocalBackend
    from mmengine.hooks import CheckpointHook

    if hasattr(LocalBackend.put, '__wrapped__'):
        return
    LocalBackend.put = _put_whole(LocalBackend.put)
    for name in SAVES:
        setattr(CheckpointHook, name, _removing_last(getattr(CheckpointHook, name)))


@contextlib.contextmanager
def replacing(path):
    """The name to write a file under; afterwards it is moved to ``path``.

    Raises:
        OSError: It could not be written; what was at ``path`` is still there.
    """
    path = os.path.realpath(path)
    part = f'{path}.part'
    try:
        yield part
        with open(part, 'rb') as file:
            os.fsync(file.fileno())  # the name must not arrive first
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(part)
        if not isinstance(error, OSError):
            raise
        raise type(error)(
            expected(
                repr(path),
                'written',
                error.strerror or error,
                'Make room or choose another folder; what was saved before is unharmed.',
            )
        ) from error


def _put_whole(put):

    @functools.wraps(put)
    def put_whole(self, obj, filepath):
        if os.path.exists(filepath) and not os.path.isfile(filepath):
            put(self, obj, filepath)  # a device or a pipe
            return
        os.makedirs(os.path.dirname(os.path.abspath(filepath)), exist_ok=True)
        with replacing(filepath) as part:
            put(self, obj, part)

    return put_whole


def _removing_last(save):

    @functools.wraps(save)
    def save_first(self, *args, **kwargs):
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
    """A file backend that only notes what it is told to remove."""

    def __init__(self, backend):
        self._backend, self.removals = backend, []

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def remove(self, path):
        self.removals.append((self._backend.remove, path))

    def rmtree(self, path):
        self.removals.append((self._backend.rmtree, path))
