"""What a check of the preflight has to say."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """A message to the user.

    Attributes:
        fatal: Whether training would be pointless; otherwise it is a warning.
        text: What was found, and what to do about it.
    """

    fatal: bool
    text: str
