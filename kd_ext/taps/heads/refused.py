"""Heads whose regions cannot be read exactly, and why."""

from __future__ import annotations

from typing import Any

# by class of the head, the RoI head or the detector
REFUSED = dict(
    AutoAssignHead='its labels are soft: each location in a box counts as object and as background, with learnt '
    'weights',
    FreeAnchorRetinaHead='its labels are soft: each object has a bag of anchors, weighed by their likelihood',
    LADHead='its labels follow the scores of a teacher of its own',
    GARetinaHead='its frozen layer skips the locations that the first image of a batch does not use',
    CenterNetHead='its labels are a heat map for each class, so a location has no label of its own',
    CenterNetUpdateHead='its labels are a heat map for each class, so a location has no label of its own',
    CornerHead='its objects are pairs of corners on two heat maps, so none has an embedding and logits of its own',
    TridentRoIHead="a batch in training holds each image once for each branch, and a frozen teacher's holds it once",
    MultiInstanceRoIHead='each proposal has two predictions, matched to a set of objects',
)


def refusal(*modules: Any) -> str | None:
    """Why the head made of these modules is refused, or None."""
    names = (kind.__name__ for module in modules for kind in type(module).__mro__)
    return next((REFUSED[name] for name in names if name in REFUSED), None)
