"""Base class of the terms on feature maps and on regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

import torch
from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.losses.protocol import LossTraits
from kd_ext.taps import Reading
from kd_ext.terms.entry import run_loss
from kd_ext.terms.match_table import Match


@dataclass(frozen=True)
class Settings:
    """The settings of an entry of ``distill`` without those of its loss; see ``kd_ext.DetectionDistill``."""

    at: str
    teacher: str | None = None
    levels: Any = None
    connector: Any = None
    schedule: Any = None
    balance: Any = None
    stage: Any = None
    class_means: Any = None
    allow_class_means_mismatch: Any = None
    level_weights: Any = None
    teacher_connector: Any = None


class Term(nn.Module):
    """Compares features of both models with a loss, through connectors."""

    needs_teacher = True  # whether its tap reads the teacher

    def __init__(self, name: str, key: str, loss: nn.Module, traits: LossTraits) -> None:
        super().__init__()
        self.name, self.key = name, key  # of the entry and of the tap
        self.loss, self.traits = loss, traits

    def error(self, setting: str, rule: str, value: object, remedy: str = '') -> ValueError:
        """A ``ValueError`` about the entry or, with ``'.levels'``, one of its settings."""
        return value_error(f'distill.{self.name}{setting}', rule, value, remedy)

    def describe(self) -> Iterator[Match | str]:
        """The matches and notes of this term, for the table of matches."""
        raise NotImplementedError

    def forward(self, student: Reading, teacher: Any, class_means: Tensor | None = None) -> dict[str, Tensor]:
        """Loss values by log key, from the readings of both passes."""
        raise NotImplementedError

    def read(self, student: Reading) -> dict[str, Tensor]:
        """The student's features that this term reads, named for messages."""
        raise NotImplementedError

    def parts(self, student: Reading, teacher: Any, class_means: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """The tensors behind the value, from input to loss, each with a text; ``{}`` is for its bad values."""
        raise NotImplementedError

    def run(self, *features: Any, **facts: Any) -> Any:
        """Calls the loss outside autocast."""
        first = features[0] if isinstance(features[0], Tensor) else features[0][0]
        with torch.autocast(first.device.type, enabled=False):
            return run_loss(self.name, self.loss, *features, **facts)

    def named(self, value: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        """Log keys for what the loss returns, a scalar or a dict of scalars."""
        if isinstance(value, dict):
            return {f'loss_{self.name}_{key}': item for key, item in value.items()}
        return {f'loss_{self.name}': value}

    def zeros(self) -> dict[str, Tensor]:
        """Zeros to log while the term is off, with its parameters in their graph.

        A loss that returns a dict declares its keys in ``parts``.
        """
        zero = sum((p.sum() for p in self.parameters()), torch.zeros(())) * 0
        return self.named(dict.fromkeys(self.traits.parts, zero) or zero)

    def without_gradient(self, student: Reading) -> list[str]:
        """Names of the student's features that have no gradient."""
        return [name for name, feature in self.read(student).items() if not feature.requires_grad]

    def fault(self, student: Reading, teacher: Any, class_means: Tensor | None = None) -> str | None:
        """The first part of this term that is not finite, in words, or None."""
        for text, value in self.parts(student, teacher, class_means):
            bad = int((~torch.isfinite(value)).sum())
            if bad:
                return text.format(f'{bad} of {value.numel()} values')
        return None
