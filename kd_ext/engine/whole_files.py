"""Writes files atomically; all tools write their results with it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator

from kd_ext.errors import expected, value_error


def check_place(path: str | os.PathLike, name: str | None = None) -> str:
    """Checks that a file to write is free or a regular file; returns its path without links.

    Raises a ``ValueError``, which mentions the setting ``name``, if it is a folder, a device or a pipe.
    """
    place = os.path.realpath(path)
    if os.path.exists(place) and not os.path.isfile(place):
        kind = 'a folder' if os.path.isdir(place) else 'no regular file: a device or a pipe'
        link = f', a link to {place!r},' if os.path.islink(path) else ''
        rule, found = 'a new name or a regular file', f'{os.fspath(path)!r}{link} which is {kind}'
        raise value_error(name or 'the file to write', rule, found, 'It is left as it is; choose another name.')
    return place


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a name to write a file under; afterwards syncs the file and moves it to ``path``, links followed.

    Raises:
        ValueError: See :func:`check_place`.
        OSError: The file could not be written; ``path`` is unchanged.
    """
    path = check_place(path)
    part = Path(f'{path}.part')
    try:
        yield part
        with open(part, 'rb') as file:
            os.fsync(file.fileno())  # or the new name may reach the disk before the content
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        remedy = 'Make room or choose another folder; what was saved before is unharmed.'
        raise type(error)(expected(repr(path), 'written', error.strerror or error, remedy)) from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces a text file with :func:`replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding='utf-8')
