"""What a distillation loss may ask for: the one place where it is written down and read.

:class:`DistillationLoss` is the contract. Nobody has to inherit from it: a loss of mmrazor, of mmdet or of one's own
project is understood by the same names. :func:`describe_loss` reads them once for each loss, and the wiring asks the
:class:`LossTraits` that it returns; nothing else looks at signatures.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, NamedTuple, Protocol

from torch import Tensor, nn

from kd_ext.errors import value_error

# parameter names of forward that mean something else than features
FACTS = {**dict.fromkeys(('labels', 'label', 'gt_labels', 'gt_label'), 'labels'), 'class_means': 'class_means'}
# attributes of a loss that have a default
OPTIONAL = ('parts', 'relates_levels', 'fits_widths', 'least_levels', 'least_classes', 'include_background', 'note')


class DistillationLoss(Protocol):
    """A torch module with this ``forward``; everything else has a default.

    The first parameter of ``forward`` gets the student's features, the second the teacher's, whatever its name,
    unless it is one of those below. These parameters are recognised by name:

    * ``labels`` (``label``, ``gt_labels``, ``gt_label``): the class of each region (N,), K for background,
    * ``class_means``: raw class means of the teacher's embeddings (K or K+1, D).

    Class means exist at ``at='embedding'``, labels there and at ``at='logits'``. For a loss without a parameter
    for the teacher's features, the teacher is not run. Other parameters need a default.

    For feature maps a loss gets one level (B, C, H, W) at a time, for regions rows (N, D) or (N, K). All are fp32,
    outside autocast. It returns a scalar, or a dict of scalars that are logged as ``loss_<entry>_<key>``.

    An optional ``setup`` is called once before the optimizer is built, with those of these facts that its
    parameters name. For feature maps: ``num_levels``, ``student_widths`` and ``teacher_widths`` (a number per
    level). For regions: ``num_classes`` (K), ``width`` (of the features that the student's are compared with) and
    ``use_sigmoid`` (of the student's head).

    Attributes:
        loss_weight: Factor on the whole. ``--distill name:0.5`` multiplies it in the entry.
        parts: Keys of the dict that ``forward`` returns, for the zeros that are logged while the term is off.
        relates_levels: ``forward`` takes all levels at once, as two tuples.
        fits_widths: The loss compares features of any widths and sizes, so no projector and no resize are added.
        least_levels: Number of levels that it needs.
        least_classes: Number of classes with a class mean that it needs.
        include_background: Whether label K counts as a class.
        note: ``note(shape)`` describes in a few words how the loss uses a student feature of this shape, for the
            table of matches.
    """

    loss_weight: float
    parts: tuple[str, ...] = ()
    relates_levels: bool = False
    fits_widths: bool = False
    least_levels: int = 1
    least_classes: int = 1
    include_background: bool = False
    note: Callable[[tuple[int, ...]], str] | None = None

    forward: Callable[..., Tensor | dict[str, Tensor]]


class LossTraits(NamedTuple):
    """What a loss needs.

    Attributes:
        call: ``NDLoss.forward(preds_S, preds_T, labels, class_means)``, for messages.
        teacher: The parameter of ``forward`` that takes the teacher's features, or None.
        in_second_place: Whether that is the second parameter.
        by_name: What each other parameter stands for, ``labels`` or ``class_means``.
        needs: Those of them without a default.
        setup: Facts that ``setup`` takes, and whether each is required.

    The others are those of :class:`DistillationLoss`.
    """

    call: str
    teacher: str | None
    in_second_place: bool
    by_name: dict[str, str]
    needs: tuple[str, ...]
    setup: dict[str, bool]
    parts: tuple[str, ...]
    relates_levels: bool
    fits_widths: bool
    least_levels: int
    least_classes: int
    include_background: bool
    note: Callable[[tuple[int, ...]], str] | None

    def asks(self, fact: str) -> bool:
        """Whether ``forward`` takes ``labels`` or ``class_means``."""
        return fact in self.by_name.values()

    def arguments(self, preds_S: Any, preds_T: Any, **facts: Any) -> tuple[tuple, dict[str, Any]]:
        """Positional and keyword arguments for the loss; ``facts`` are ``labels`` and ``class_means``."""
        named = {name: facts[fact] for name, fact in self.by_name.items()}
        if self.in_second_place:
            return (preds_S, preds_T), named
        return (preds_S,), named if self.teacher is None else {**named, self.teacher: preds_T}


def describe_loss(loss: nn.Module, place: str = 'the loss') -> LossTraits:
    """Reads what a loss asks for.

    Args:
        loss: A module that follows :class:`DistillationLoss`.
        place: Of the config, for messages.

    Raises:
        ValueError: ``forward`` takes no features of the student beside something to compare them with, or needs
            what no part of the wiring knows.
    """
    kinds = inspect.Parameter
    parameters = [
        p
        for p in inspect.signature(loss.forward).parameters.values()
        if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    ]
    call = f'{type(loss).__name__}.forward({", ".join(p.name for p in parameters)})'
    by_name = {p.name: FACTS[p.name] for p in parameters if p.name in FACTS}
    others = [p for p in parameters if p.name not in FACTS]
    required = [p.name for p in others if p.default is p.empty]
    second = parameters[1].name if len(parameters) > 1 else None
    teacher = second if second is not None and second not in FACTS else next(iter(required[1:]), None)
    unknown = [name for name in required[1:] if name != teacher]
    if not others or others[0] is not parameters[0] or unknown or not (teacher or by_name):
        raise value_error(
            f'{place}.type',
            'a loss whose forward takes student and teacher features, forward(preds_S, preds_T), and by name labels '
            'and class_means',
            call,
            f'Nothing here knows {", ".join(unknown)}.' if unknown else 'See docs/new_loss.md.',
        )
    own = {name: getattr(loss, name, getattr(DistillationLoss, name)) for name in OPTIONAL}
    setup = getattr(loss, 'setup', None)
    facts = inspect.signature(setup).parameters if callable(setup) else {}
    return LossTraits(
        call,
        teacher,
        teacher is not None and teacher == second,
        by_name,
        tuple(p.name for p in parameters if p.name in FACTS and p.default is p.empty),
        {name: p.default is p.empty for name, p in facts.items()},
        **{**own, 'parts': tuple(own['parts'])},
    )
