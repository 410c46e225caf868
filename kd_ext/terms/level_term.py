"""A term on feature maps: level pairs, their connectors and a loss."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

from torch import Tensor, nn

from kd_ext.build.modules import naming
from kd_ext.connectors import Connector
from kd_ext.connectors.teacher_connectors import teacher_connectors
from kd_ext.errors import near_matches, value_error
from kd_ext.losses.checks import check_weight
from kd_ext.losses.precision import upcast
from kd_ext.taps import ModuleTap, Reading
from kd_ext.terms.entry import build_loss, set_up
from kd_ext.terms.level_pairing import Shape, pair_levels, side, unpaired
from kd_ext.terms.match_table import Match
from kd_ext.terms.term import Settings, Term


class LevelTerm(Term):
    """Compares pairs of feature maps with a loss, through connectors.

    Args:
        student, teacher: Shapes seen in the probe.
        settings: ``levels``, see :func:`pair_levels`; ``level_weights``, a factor per pair; ``connector``, a
            projector for every pair instead of the automatic one, built with ``in_channel`` and ``out_channel``;
            ``teacher_connector``, a module for every teacher map.
        model: The teacher, for the initialisation of its connectors; not kept.
        others: Terms made before; ``connector=<name>`` shares the connectors of one.

    Raises:
        ValueError: The loss needs labels, the levels cannot be paired, or a setting does not fit.
    """

    def __init__(
        self,
        name: str,
        loss: dict[str, Any],
        tap: ModuleTap,
        student: Sequence[Shape],
        teacher: Sequence[Shape],
        settings: Settings,
        model: nn.Module,
        others: Mapping[str, Term],
    ) -> None:
        super().__init__(name, tap.key, *build_loss(name, loss))
        self.shapes = dict(student=student, teacher=teacher)
        if self.traits.needs or not self.traits.in_second_place:
            rule = f"'embedding' or 'logits', where regions have labels, as {type(self.loss).__name__} needs them"
            raise self.error('.at', rule, repr(tap.key))
        self.pairs = pair_levels(name, settings.levels, student, teacher, self.traits.least_levels)
        pairs = [(student[i], teacher[j]) for i, j in self.pairs]
        self.weights = self._level_weights(settings.level_weights)
        connector, widths = settings.connector, [high[1] for _, high in pairs]
        set_up(
            f'distill.{name}.at',
            self.loss,
            self.traits,
            num_levels=len(pairs),
            student_widths=widths if connector else [low[1] for low, _ in pairs],
            teacher_widths=widths,
        )
        self.shares = connector if isinstance(connector, str) else None
        if self.shares:
            # not registered: the other entry holds these parameters, and an optimizer must not get them twice
            self.__dict__['connectors'] = self._shared(self.shares, others)
        else:
            # a loss that compares any widths needs no connectors
            needed = [] if connector is None and self.traits.fits_widths else pairs
            place = f'distill.{name}.connector'
            self.connectors = nn.ModuleList(Connector.between(*pair, connector, place) for pair in needed)
        self.teacher_connectors = teacher_connectors(
            name, settings.teacher_connector, tap, model, [j for _, j in self.pairs], widths
        )

    def _level_weights(self, weights: Any) -> list[float]:
        if weights is None:
            return [1.0] * len(self.pairs)
        if not isinstance(weights, (tuple, list)):
            weights = (weights,)
        rule = f'{len(self.pairs)} numbers, one per pair of levels'
        if self.traits.relates_levels:
            rule = 'left out, as this loss relates levels'
        if self.traits.relates_levels or len(weights) != len(self.pairs):
            raise self.error('.level_weights', rule, tuple(weights))
        return [check_weight('level_weights', value) for value in weights]

    def _shared(self, other: str, others: Mapping[str, Term]) -> nn.ModuleList:
        known = {key: term for key, term in others.items() if isinstance(term, LevelTerm)}
        if other not in known:
            remedy = near_matches(other, known) if known else 'No entry above reads feature maps.'
            raise self.error('.connector', 'a config, or the name of an entry above it', repr(other), remedy)
        term = known[other]
        if not term.connectors or (term.key, term.pairs) != (self.key, self.pairs):
            rule = 'of an entry that reads the same levels at the same place through connectors'
            raise self.error('.connector', rule, repr(other))
        return term.connectors

    def describe(self) -> Iterator[Match | str]:
        student, teacher = self.shapes['student'], self.shapes['teacher']
        for index, (i, j) in enumerate(self.pairs):
            how: tuple[str, int] = ('', 0)
            if self.shares:
                how = (f'of {self.shares}', 0)
            elif self.connectors:
                connector: Any = self.connectors[index]
                how = connector.describe(student[i], teacher[j])
            note = self.traits.note(teacher[j]) if self.traits.note else ''
            yield Match(self.name, side(self.key, i, student[i]), side(self.key, j, teacher[j]), *how, note)
        left = unpaired(self.pairs, student, teacher)
        if left:
            yield f'{self.name}: strides without a partner: {left}'

    def connected(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Pairs of features for the loss, in fp32."""
        pairs = [(student[i], teacher[j]) for i, j in self.pairs]
        with naming(f'distill.{self.name}', 'read where there is what its connectors take', pairs):
            if self.teacher_connectors:
                pairs = [(low, connector(high)) for connector, (low, high) in zip(self.teacher_connectors, pairs)]
            if self.connectors:
                pairs = [(connector(*pair), pair[1]) for connector, pair in zip(self.connectors, pairs)]
        # channels-last maps stop losses that view them in another shape, as mmrazor's do
        return [(upcast(low).contiguous(), upcast(high).contiguous()) for low, high in pairs]

    def _levels(self, role: str, reading: Reading) -> tuple[Tensor, ...]:
        """The levels of a reading; their number must be that of the probe, from which the pairs were made."""
        found, count = reading.levels(self.key), len(self.shapes[role])
        if len(found) != count:
            rule = f'{count}, as in the pass of the {role} by which distill.{self.name} chose its levels'
            remedy = "Tap a module that runs equally often in each pass, or at='neck' or 'backbone'."
            raise value_error(f'the outputs of {self.key!r} in a training step', rule, len(found), remedy)
        return found

    def forward(self, student: Reading, teacher: Any, class_means: Tensor | None = None) -> dict[str, Tensor]:
        pairs = self.connected(self._levels('student', student), self._levels('teacher', teacher))
        if self.traits.relates_levels:
            return self.named(self.run(*zip(*pairs)))
        return self.named(_add(self.weights, [self.run(*pair) for pair in pairs]))

    def read(self, student: Reading) -> dict[str, Tensor]:
        levels = student.levels(self.key)
        return {f'{self.key}[{i}]': levels[i] for i, _ in self.pairs}

    def parts(self, student: Reading, teacher: Any, class_means: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        low, high = self._levels('student', student), self._levels('teacher', teacher)
        for (i, j), pair in zip(self.pairs, self.connected(low, high)):
            for role, index, feature, connected in (('student', i, low[i], pair[0]), ('teacher', j, high[j], pair[1])):
                yield f'level {index} of {self.key!r}: {{}} of the {role} feature', feature
                yield f'level {index} of {self.key!r}: {{}} of the {role} connected feature', connected
            if not self.traits.relates_levels:
                for value in self.named(self.run(*pair)).values():
                    yield f'level {i} of {self.key!r}: the loss of that level', value


def _add(weights: list[float], values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: _add(weights, [value[key] for value in values]) for key in values[0]}
    return sum(weight * value for weight, value in zip(weights, values))
