"""One entry of ``distill=``: a tap, its connectors and its loss."""

import inspect

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from kd_ext.connectors import Connector
from kd_ext.losses.precision import upcast
from kd_ext.messages import expected, near_matches
from kd_ext.registry import MODELS

SETTINGS = ('at', 'levels', 'connector')


def split_entry(name, cfg):
    """Divides ``dict(type=, at=, levels=, connector=, **loss)``.

    Returns:
        tuple[dict, dict]: The loss config and the settings of the term.

    Raises:
        ValueError: The name or the entry cannot be used.
    """
    if not isinstance(name, str) or not name.replace('-', '_').isidentifier():
        raise ValueError(expected(
            'a name in distill', 'made of letters, digits and _', repr(name),
            'It becomes the log key distill.loss_<name>, which MMEngine adds '
            'to the total because it contains "loss".'))
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ValueError(expected(
            f'distill.{name}', 'a dict with type and at', repr(cfg)))
    if 'at' not in cfg:
        raise ValueError(expected(
            f'distill.{name}', 'told where to read features', 'no at=',
            "Say at='neck', at='backbone' or at='<module path>'."))
    loss = {key: cfg[key] for key in cfg if key not in SETTINGS}
    return loss, {key: cfg[key] for key in SETTINGS if key in cfg}


def build_loss(name, cfg):
    """Builds a loss of kd_ext, mmrazor or any other registry.

    Raises:
        ValueError: Unknown type, unknown argument or no distillation loss.
    """
    kind = cfg['type']
    with DefaultScope.overwrite_default_scope('kd_ext'):
        try:
            known = MODELS.get(kind) if isinstance(kind, str) else kind
        except (RuntimeError, ImportError):
            known = None
        if known is None:
            raise ValueError(expected(
                f'distill.{name}.type', 'a registered loss', repr(kind),
                near_matches(kind, _loss_names())))
        try:
            loss = MODELS.build(ConfigDict(cfg))
        except TypeError as error:
            raise ValueError(expected(
                f'distill.{name}', 'arguments of '
                f'{known.__name__}{inspect.signature(known)}',
                str(error))) from error
    parameters = [p for p in inspect.signature(loss.forward).parameters
                  .values() if p.kind in (p.POSITIONAL_ONLY,
                                          p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in parameters if p.default is p.empty]
    if len(parameters) < 2 or len(required) > 2:
        raise ValueError(expected(
            f'distill.{name}.type', 'a loss whose forward takes student and '
            'teacher features, forward(preds_S, preds_T)',
            f'{known.__name__}.forward({", ".join(required)})'))
    return loss


def _loss_names():
    import mmrazor.models.losses as razor

    import kd_ext.losses as own
    return ([f'kd_ext.{name}' for name in own.__all__ if name.endswith('Loss')]
            + [f'mmrazor.{name}' for name in razor.__all__])


def pair_levels(name, wanted, student, teacher):
    """Which student level learns from which teacher level.

    Args:
        name (str): Of the term, for messages.
        wanted (Sequence[int] | None): The same indices on both sides. With
            None all levels, in order where both sides have as many, by equal
            size where they do not.
        student, teacher (Sequence[torch.Size]): Shapes seen in the probe.

    Returns:
        list[tuple[int, int]]: Student and teacher index of each pair.
    """
    if wanted is not None:
        wanted = [wanted] if isinstance(wanted, int) else list(wanted)
        common = min(len(student), len(teacher))
        if not wanted or not all(isinstance(level, int)
                                 and 0 <= level < common for level in wanted):
            raise ValueError(expected(
                f'distill.{name}.levels', f'within 0..{common - 1}',
                tuple(wanted), f'There the student has {len(student)} levels '
                f'and the teacher {len(teacher)}.'))
        return [(level, level) for level in wanted]
    if len(student) == len(teacher):
        return [(level, level) for level in range(len(student))]
    pairs = [(i, j) for i, small in enumerate(student)
             for j, large in enumerate(teacher) if small[2:] == large[2:]]
    if not pairs or len({i for i, _ in pairs}) < len(pairs):
        raise ValueError(expected(
            f'distill.{name}', 'read at levels that can be paired',
            f'{[tuple(s) for s in student]} and {[tuple(t) for t in teacher]}',
            'Name the levels to use: levels=(0, 1, ...).'))
    return pairs


class Term(nn.Module):
    """Reads pairs of features, connects them, weighs them with a loss.

    Args:
        name (str): Key of the entry.
        loss (dict): Config of the loss.
        at (str): The tap.
        student, teacher (Sequence[torch.Size]): Shapes seen in the probe.
        levels (Sequence[int], optional): See :func:`pair_levels`.
        connector (dict, optional): Projector for every level in place of the
            automatic one; gets ``in_channel`` and ``out_channel``.
    """

    def __init__(self, name, loss, at, student, teacher, levels=None,
                 connector=None):
        super().__init__()
        self.name, self.at = name, at
        self.pairs = pair_levels(name, levels, student, teacher)
        self.loss = build_loss(name, loss)
        self.connectors = nn.ModuleList(
            Connector.between(student[i], teacher[j], connector)
            for i, j in self.pairs)

    def describe(self, student, teacher):
        """One line a pair: shapes, projector, resize."""
        for (i, j), connector in zip(self.pairs, self.connectors):
            yield (f'{self.name}: {self.at}[{i}] {tuple(student[i][1:])} <- '
                   f'{self.at}[{j}] {tuple(teacher[j][1:])}'
                   f'{connector.describe(student[i], teacher[j])}')

    def connected(self, student, teacher):
        """Pairs of features of one shape, in fp32: list of two tensors."""
        return [upcast((connector(student[i], teacher[j]), teacher[j]))
                for (i, j), connector in zip(self.pairs, self.connectors)]

    def forward(self, student, teacher):
        """Named loss terms from the levels of both sides."""
        pairs = self.connected(student, teacher)
        with torch.autocast(pairs[0][0].device.type, enabled=False):
            if getattr(self.loss, 'relates_levels', False):
                value = self.loss(*(tuple(side) for side in zip(*pairs)))
            else:
                value = _add([self.loss(*pair) for pair in pairs])
        if isinstance(value, dict):
            return {f'loss_{self.name}_{key}': item
                    for key, item in value.items()}
        return {f'loss_{self.name}': value}

    def fault(self, student, teacher):
        """Where this term stops being finite, in words, or None."""
        for (i, j), pair in zip(self.pairs,
                                self.connected(student, teacher)):
            for role, levels, index, feature in (
                    ('student', student, i, pair[0]),
                    ('teacher', teacher, j, pair[1])):
                for kind, value in (('feature', levels[index]),
                                    ('connected feature', feature)):
                    bad = int((~torch.isfinite(value)).sum())
                    if bad:
                        return (f'level {index} of {self.at!r}: {bad} of '
                                f'{value.numel()} values of the {role} {kind}')
            if not getattr(self.loss, 'relates_levels', False):
                values = self.loss(*pair)
                values = values if isinstance(values, dict) else {'': values}
                if not all(bool(torch.isfinite(v).all())
                           for v in values.values()):
                    return f'level {i} of {self.at!r}: the loss of that level'
        return None


def _add(values):
    if isinstance(values[0], dict):
        return {key: sum(value[key] for value in values) for key in values[0]}
    return sum(values)
