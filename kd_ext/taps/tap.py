"""WHERE features are read: one tap knows one kind of detector part.

A tap names modules of student and teacher; the :class:`Recorder` reads them.
A new kind of part is a new subclass or a line in ``TAPS``.
"""

from torch import nn

from kd_ext.messages import expected, near_matches


class ModuleTap:
    """The outputs of a module named by its dotted path.

    A module that runs once for each level (a dense head's conv) gives one
    tensor a call, so its calls are its levels.

    Args:
        path (str): Path inside the detector, ``'neck'``,
            ``'bbox_head.cls_convs.3'``.
    """

    def __init__(self, path):
        self.path = path

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
            f'a tap ({", ".join(TAPS)}) or the path of a module of the {role} '
            f'{type(model).__name__}', 'neither',
            near_matches(self.path, [*TAPS, *names]))


class PartTap(ModuleTap):
    """A part that detectors keep under a fixed attribute."""

    def _missing(self, model, role):
        parts = [name for name, _ in model.named_children()
                 if name != 'data_preprocessor']
        return expected(
            f"at='{self.path}'", f'a part of the {role} '
            f'{type(model).__name__}', f'one made of {", ".join(parts)}',
            f'Tap another part, or take another {role}.')


TAPS = dict(backbone=PartTap, neck=PartTap)


def build_tap(at):
    """The tap that ``at`` names: a key of ``TAPS`` or a module path."""
    if not isinstance(at, str) or not at:
        raise ValueError(expected(
            'at', f'a tap ({", ".join(TAPS)}) or a dotted module path',
            repr(at)))
    return TAPS.get(at, ModuleTap)(at)
