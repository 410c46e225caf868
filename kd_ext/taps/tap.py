"""WHERE features are read: one tap knows one kind of detector part.

A tap names what to record of student and teacher; :class:`Reading` does it. A new kind of part is a new subclass
or a line in ``TAPS``.
"""

from torch import nn

from kd_ext.errors import expected, near_matches, value_error
from kd_ext.taps.heads import find_head


class ModuleTap:
    """The outputs of a module named by its dotted path.

    A module that runs once for each level (a dense head's conv) gives one tensor a call, so its calls are its
    levels.

    Args:
        path (str): Path inside the detector, ``'neck'``, ``'bbox_head.cls_convs.3'``.
    """

    of_regions = False

    def __init__(self, path):
        self.path = self.key = path

    def source(self, model, role):
        """The module to record.

        Raises:
            ValueError: No such module; the message lists near matches.
        """
        module = model
        for part in self.path.split('.'):
            module = getattr(module, part, None)
            if not isinstance(module, nn.Module):
                raise ValueError(self._missing(model, role))
        return module

    def _missing(self, model, role):
        names = [name for name, _ in model.named_modules() if name]
        return expected(
            f"at='{self.path}'",
            f'a tap ({", ".join(TAPS)}) or the path of a module of the {role} {type(model).__name__}',
            'neither',
            near_matches(self.path, [*TAPS, *names]),
        )


class PartTap(ModuleTap):
    """A part that detectors keep under a fixed attribute."""

    def _missing(self, model, role):
        parts = [name for name, _ in model.named_children() if name != 'data_preprocessor']
        return expected(
            f"at='{self.path}'",
            f'a part of the {role} {type(model).__name__}',
            f'one made of {", ".join(parts)}',
            f'Tap another part, or take another {role}.',
        )


class RegionTap:
    """What feeds and leaves the last classification layer, with labels.

    ``embedding`` and ``logits`` are two fields of what it reads.

    Args:
        stage (int, optional): Stage of a cascade; by default the first, or the last of Sparse R-CNN.
        levels (Sequence[int], optional): Levels of a dense head.
    """

    of_regions = True

    def __init__(self, stage=None, levels=None):
        if levels is not None and not isinstance(levels, (tuple, list)):
            levels = (levels,)
        for name, values in (('stage', None if stage is None else (stage,)), ('levels', levels)):
            if values is not None and (not values or not all(type(value) is int and value >= 0 for value in values)):
                raise value_error(
                    name, 'whole numbers >= 0' if name == 'levels' else 'a whole number >= 0', repr(values)
                )
        self.stage, self.levels = stage, levels
        self.key = 'regions' + ''.join(
            f'_{name}{value}' for name, value in (('stage', stage), ('levels', levels)) if value is not None
        )

    def head(self, model, role):
        """The :class:`Head` to watch.

        Raises:
            ValueError: The detector's head is none that the taps know.
        """
        return find_head(model, role, self.stage, self.levels)


TAPS = dict(backbone=PartTap, neck=PartTap, embedding=RegionTap, logits=RegionTap)


def build_tap(at, stage=None, levels=None):
    """The tap that ``at`` names: a key of ``TAPS`` or a module path.

    ``stage`` and ``levels`` concern region taps alone.
    """
    if not isinstance(at, str) or not at:
        raise value_error('at', f'a tap ({", ".join(TAPS)}) or a dotted module path', repr(at))
    kind = TAPS.get(at, ModuleTap)
    return kind(stage, levels) if kind is RegionTap else kind(at)
