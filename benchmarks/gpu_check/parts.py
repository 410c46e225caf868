"""The parts of the check, and the rows that they report."""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch


class Setting(NamedTuple):
    """What a part runs on; ``small`` sizes finish on a CPU in seconds."""

    device: str
    small: bool

    @property
    def halves(self) -> tuple[torch.dtype, ...]:
        """Precisions of autocast: a CPU has no gradient scaler, and few of its kernels have fp16."""
        return (torch.float16, torch.bfloat16) if self.device == 'cuda' else (torch.bfloat16,)


class Row(NamedTuple):
    """One thing that was looked at.

    ``found`` is at most ``limit``, or equal to it if it is a text; None is measured and not judged.
    """

    what: str
    found: float | str | None
    limit: float | str | None = None
    note: str = ''

    @property
    def good(self) -> bool | None:
        if self.limit is None:
            return None
        if isinstance(self.limit, str):
            return self.found == self.limit
        return isinstance(self.found, (int, float)) and self.found <= self.limit  # nan is not


PARTS: dict[str, Callable[[Setting], list[Row]]] = {}


def part(function: Callable[[Setting], list[Row]]) -> Callable[[Setting], list[Row]]:
    """Adds a part under its function's name; parts run in the order of their definition."""
    PARTS[function.__name__] = function
    return function


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Length of the difference over the length of ``exact``, in float64 on the CPU."""
    found, exact = found.detach().double().cpu(), exact.detach().double().cpu()
    return float((found - exact).norm() / exact.norm().clamp(min=1e-30))
