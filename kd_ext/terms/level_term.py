"""A term on feature maps: level pairs, their connectors and a loss."""

import torch
from torch import nn

from kd_ext.build.modules import naming
from kd_ext.connectors import Connector
from kd_ext.connectors.teacher_connectors import teacher_connectors
from kd_ext.errors import near_matches, value_error
from kd_ext.losses.checks import check_weight
from kd_ext.losses.precision import upcast
from kd_ext.terms.entry import build_loss, run_loss, set_up
from kd_ext.terms.level_pairing import pair_levels, side, unpaired
from kd_ext.terms.match_table import Match


def named_terms(name, value):
    """What a loss returns, a tensor or a dict of them, by log key."""
    if isinstance(value, dict):
        return {f'loss_{name}_{key}': item for key, item in value.items()}
    return {f'loss_{name}': value}


def zero_terms(term):
    """The terms of a term that is off: 0, in the graph of its parameters.

    A loss that gives several says their names in ``parts``.
    """
    zero = sum((p.sum() for p in term.parameters()), torch.zeros(())) * 0
    return named_terms(term.name, dict.fromkeys(term.traits.parts, zero) or zero)


def count_bad(feature):
    """``3 of 8 values`` where some are not finite, else an empty string."""
    bad = int((~torch.isfinite(feature)).sum())
    return f'{bad} of {feature.numel()} values' if bad else ''


class LevelTerm(nn.Module):
    """Reads pairs of feature maps, connects them, weighs them with a loss.

    Args:
        name (str): Key of the entry.
        loss (dict): Config of the loss.
        tap (ModuleTap): Where the maps are read.
        student, teacher (Sequence[torch.Size]): Shapes seen in the probe.
        settings (dict): ``levels`` (see :func:`pair_levels`), ``level_weights``, one factor a pair, ``connector``,
            a projector for every pair in place of the automatic one, which gets ``in_channel`` and
            ``out_channel``, and ``teacher_connector``, a module for every teacher map.
        model (nn.Module, optional): The teacher, from which its connectors may be initialised; not kept.
        others (Mapping[str, LevelTerm], optional): Terms made before, whose connectors ``connector=<name>``
            shares.

    Raises:
        ValueError: The loss needs labels, the levels cannot be paired, or a setting does not fit them.
    """

    needs_teacher = True

    def __init__(self, name, loss, tap, student, teacher, settings=(), model=None, others=()):
        super().__init__()
        settings = dict(settings)
        self.name, self.key = name, tap.key
        self.counts = dict(student=len(student), teacher=len(teacher))
        self.loss, self.traits = build_loss(name, loss)
        if self.traits.needs or not self.traits.in_second_place:
            raise value_error(
                f'distill.{name}.at',
                f"'embedding' or 'logits', where regions have labels, as {type(self.loss).__name__} needs them",
                repr(tap.key),
            )
        self.pairs = pair_levels(name, settings.get('levels'), student, teacher, self.traits.least_levels)
        self.relates = self.traits.relates_levels
        self.weights = self._level_weights(settings.get('level_weights'))
        connector = settings.get('connector')
        if self.traits.setup:
            widths = [(teacher[j] if connector else student[i])[1] for i, j in self.pairs]
            set_up(
                f'distill.{name}.at',
                self.loss,
                self.traits,
                num_levels=len(self.pairs),
                student_widths=widths,
                teacher_widths=[teacher[j][1] for _, j in self.pairs],
            )
        self.shares = connector if isinstance(connector, str) else None
        if self.shares:
            # parameters of the other entry: registered there alone, as an optimizer with paramwise_cfg takes none
            # twice
            self.__dict__['connectors'] = self._shared(connector, others)
        else:
            self.connectors = self._student_side(connector, student, teacher)
        self.teacher_connectors = teacher_connectors(
            name,
            settings.get('teacher_connector'),
            tap,
            model,
            [j for _, j in self.pairs],
            [teacher[j][1] for _, j in self.pairs],
        )

    def _level_weights(self, weights):
        if weights is None:
            return [1.0] * len(self.pairs)
        if not isinstance(weights, (tuple, list)):
            weights = (weights,)
        if self.relates or len(weights) != len(self.pairs):
            raise value_error(
                f'distill.{self.name}.level_weights',
                'left out, as this loss relates levels'
                if self.relates
                else f'{len(self.pairs)} numbers, one per pair of levels',
                tuple(weights),
            )
        return [check_weight('level_weights', value) for value in weights]

    def _student_side(self, connector, student, teacher):
        """One connector a pair; none where the loss takes other widths."""
        if connector is None and self.traits.fits_widths:
            return nn.ModuleList()
        return nn.ModuleList(
            Connector.between(student[i], teacher[j], connector, f'distill.{self.name}.connector')
            for i, j in self.pairs
        )

    def _shared(self, other, others):
        known = [key for key in others if isinstance(others[key], LevelTerm)]
        if other not in known:
            raise value_error(
                f'distill.{self.name}.connector',
                'a config, or the name of an entry above it',
                repr(other),
                near_matches(other, known) if known else 'No entry above reads feature maps.',
            )
        term = others[other]
        if not term.connectors or (term.key, term.pairs) != (self.key, self.pairs):
            raise value_error(
                f'distill.{self.name}.connector',
                'of an entry that reads the same levels at the same place through connectors',
                repr(other),
            )
        return term.connectors

    def describe(self, student, teacher):
        """A :class:`Match` a pair, and a note on what has no partner."""
        for index, (i, j) in enumerate(self.pairs):
            how = ()
            if self.shares:
                how = (f'of {self.shares}',)
            elif self.connectors:
                how = self.connectors[index].describe(student[i], teacher[j])
            yield Match(self.name, side(self.key, i, student[i]), side(self.key, j, teacher[j]), *how)
        left = unpaired(self.pairs, student, teacher)
        if left:
            yield f'{self.name}: strides without a partner: {left}'

    def connected(self, student, teacher):
        """Pairs of features to compare, in fp32: list of two tensors."""
        pairs = [(student[i], teacher[j]) for i, j in self.pairs]
        with naming(f'distill.{self.name}', 'read where there is what its connectors take', pairs):
            if self.teacher_connectors:
                pairs = [(low, connector(high)) for connector, (low, high) in zip(self.teacher_connectors, pairs)]
            if self.connectors:
                pairs = [(connector(*pair), pair[1]) for connector, pair in zip(self.connectors, pairs)]
        return [upcast(pair) for pair in pairs]

    def _levels(self, **readings):
        """The levels of each reading, as many as the probe saw: the pairs were made for those."""
        levels = {role: reading.levels(self.key) for role, reading in readings.items()}
        for role, found in levels.items():
            if len(found) != self.counts[role]:
                raise value_error(
                    f'the outputs of {self.key!r} in a training step',
                    f'{self.counts[role]}, as in the pass of the {role} by which distill.{self.name} chose its levels',
                    len(found),
                    "Tap a module that runs equally often in each pass, or at='neck' or 'backbone'.",
                )
        return levels.values()

    def forward(self, student, teacher, class_means=None):
        """Named loss terms from the readings of both passes."""
        pairs = self.connected(*self._levels(student=student, teacher=teacher))
        with torch.autocast(pairs[0][0].device.type, enabled=False):
            if self.relates:
                value = run_loss(self.name, self.loss, *(tuple(side) for side in zip(*pairs)))
            else:
                value = _add(self.weights, [run_loss(self.name, self.loss, *pair) for pair in pairs])
        return named_terms(self.name, value)

    def without_gradient(self, student):
        """What this term reads of the student that has no gradient: list[str]."""
        levels = student.levels(self.key)
        return [f'{self.key}[{i}]' for i, _ in self.pairs if not levels[i].requires_grad]

    def fault(self, student, teacher, class_means=None):
        """Where this term stops being finite, in words, or None."""
        student, teacher = self._levels(student=student, teacher=teacher)
        for (i, j), pair in zip(self.pairs, self.connected(student, teacher)):
            for role, levels, index, feature in (('student', student, i, pair[0]), ('teacher', teacher, j, pair[1])):
                for kind, value in (('feature', levels[index]), ('connected feature', feature)):
                    bad = count_bad(value)
                    if bad:
                        return f'level {index} of {self.key!r}: {bad} of the {role} {kind}'
            if not self.relates:
                values = named_terms('', self.loss(*pair)).values()
                if not all(bool(torch.isfinite(v).all()) for v in values):
                    return f'level {i} of {self.key!r}: the loss of that level'
        return None


def _add(weights, values):
    if isinstance(values[0], dict):
        return {key: _add(weights, [value[key] for value in values]) for key in values[0]}
    return sum(weight * value for weight, value in zip(weights, values))
