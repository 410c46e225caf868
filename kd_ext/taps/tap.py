"""Where features are read: each tap reads one kind of detector part.

A tap names what to record of student and teacher; :class:`Reading` records it. A new kind of part is a new
subclass or a line in ``TAPS``.
"""

from __future__ import annotations

from typing import Any, Sequence

from torch import nn

from kd_ext.errors import expected, near_matches, value_error
from kd_ext.taps.heads import Head, find_head


class ModuleTap:
    """The outputs of a module named by its dotted path.

    A module that runs once per level (a dense head's conv) returns one tensor per call, so its calls are its
    levels.

    Args:
        path: Path inside the detector, ``'neck'``, ``'bbox_head.cls_convs.3'``.
    """

    of_regions = False

    def __init__(self, path: str) -> None:
        self.path = self.key = path

    def source(self, model: nn.Module, role: str) -> Any:
        """The module to record, or an object with its ``register_forward_hook``.

        Raises:
            ValueError: No such module; the message lists near matches.
        """
        module: Any = model
        for part in self.path.split('.'):
            module = getattr(module, part, None)
            if not isinstance(module, nn.Module):
                raise ValueError(self._missing(model, role))
        return module

    def _missing(self, model: nn.Module, role: str) -> str:
        names = [name for name, _ in model.named_modules() if name]
        rule = f'a tap ({", ".join(TAPS)}) or the path of a module of the {role} {type(model).__name__}'
        return expected(f"at='{self.path}'", rule, 'neither', near_matches(self.path, [*TAPS, *names]))


class PartTap(ModuleTap):
    """A part that detectors keep under a fixed attribute."""

    def _missing(self, model: nn.Module, role: str) -> str:
        parts = ', '.join(name for name, _ in model.named_children() if name != 'data_preprocessor')
        rule, remedy = f'a part of the {role} {type(model).__name__}', f'Tap another part, or take another {role}.'
        return expected(f"at='{self.path}'", rule, f'one made of {parts}', remedy)


class RegionTap:
    """Input and output of the last classification layer, with labels.

    ``embedding`` and ``logits`` are two fields of the result.

    Args:
        stage: Stage of a cascade; by default the first, or the last of Sparse R-CNN.
        levels: Levels of a dense head.

    Raises:
        ValueError: A setting is not a whole number, or a level is given twice.
    """

    of_regions = True

    def __init__(self, stage: int | None = None, levels: int | Sequence[int] | None = None) -> None:
        levels = levels if levels is None or isinstance(levels, (tuple, list)) else (levels,)
        self.stage, self.levels = stage, levels
        self.key = 'regions'
        for name, values, rule in (
            ('stage', None if stage is None else (stage,), 'a whole number >= 0'),
            ('levels', levels, 'different whole numbers >= 0'),
        ):
            if values is None:
                continue
            whole = all(type(value) is int and value >= 0 for value in values)
            if not whole or not 0 < len({*values}) == len(values):
                raise value_error(name, rule, repr(values))
            self.key += f'_{name}{getattr(self, name)}'

    def head(self, model: nn.Module, role: str) -> Head:
        """The :class:`Head` to watch: ``find_head`` without its check of the settings."""
        return find_head(model, role, self.stage, self.levels, strict=False)


TAPS: dict[str, Any] = dict(backbone=PartTap, neck=PartTap, embedding=RegionTap, logits=RegionTap)


def build_tap(at: str, stage: int | None = None, levels: int | Sequence[int] | None = None) -> ModuleTap | RegionTap:
    """Builds the tap that ``at`` names: a key of ``TAPS`` or a module path.

    ``stage`` and ``levels`` are for region taps.

    Raises:
        ValueError: ``at`` is not a name, or a setting of a region tap is not a number.
    """
    if not isinstance(at, str) or not at:
        raise value_error('at', f'a tap ({", ".join(TAPS)}) or a dotted module path', repr(at))
    kind = TAPS.get(at, ModuleTap)
    return kind(stage, levels) if kind is RegionTap else kind(at)
