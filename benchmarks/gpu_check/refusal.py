"""How the check says no: one sentence, exit status 2. Standard library alone: nothing else may be there."""

from __future__ import annotations

import sys
from typing import Callable

STATUS = 2


class Refusal(Exception):
    """Something that the check needs is missing; the text is for the user."""


def refusing(main: Callable[[], int | None]) -> int:
    """Exit status of ``main``; a :class:`Refusal` is printed."""
    try:
        return main() or 0
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return STATUS
