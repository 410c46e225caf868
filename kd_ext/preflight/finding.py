"""The result of a preflight check."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """What was found and what to do about it.

    ``fatal`` says that training would be pointless; otherwise it is a warning.
    """

    fatal: bool
    text: str


def fatal(text: str) -> Finding:
    """A :class:`Finding` that makes training pointless."""
    return Finding(True, text)


def warning(text: str) -> Finding:
    """A :class:`Finding` that does not stop a training."""
    return Finding(False, text)
