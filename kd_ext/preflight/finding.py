"""One thing that the preflight has to say."""

from typing import NamedTuple


class Finding(NamedTuple):
    """``fatal`` findings make a training pointless; others are worth a look.

    Attributes:
        fatal: Whether the training should not be started.
        text: What was found, and what to do about it.
    """

    fatal: bool
    text: str
