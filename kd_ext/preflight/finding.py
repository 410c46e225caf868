"""The result of a preflight check."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """A message to the user.

    Attributes:
        fatal: Whether training would be pointless; otherwise it is a warning.
        text: What is wrong and what to do about it.
    """

    fatal: bool
    text: str
