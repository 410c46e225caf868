"""Finds the kind of head that a detector has."""

from __future__ import annotations

from typing import Any, Sequence

from torch import nn

from kd_ext.errors import value_error
from kd_ext.taps.heads.base import Head, Regions, own_loss_mode, run_own_loss
from kd_ext.taps.heads.dense import DenseHead, dense_module
from kd_ext.taps.heads.dense_kinds import KINDS
from kd_ext.taps.heads.query import IterativeRoIHead, MaskQueryHead, QueryHead
from kd_ext.taps.heads.refused import refusal
from kd_ext.taps.heads.roi import RoIHead

__all__ = ['DenseHead', 'HEADS', 'Head', 'Regions', 'check_settings', 'find_head', 'own_loss_mode', 'run_own_loss']

# the first kind that recognises a model is used; insert your own kinds in front
HEADS: list[Any] = [IterativeRoIHead, RoIHead, DenseHead, MaskQueryHead, QueryHead]
SUPPORTED = (
    'RoI heads (Standard, Cascade, Double, Dynamic, Grid, PISA, HTC, Sparse R-CNN, QueryInst) whose bbox_head has '
    f'fc_cls; dense heads ({", ".join(name.removesuffix("Head") for name in KINDS)}); query heads (DETR, '
    'Conditional, DAB, Deformable DETR, DINO, DDQ, MaskFormer, Mask2Former)'
)
MEANING = dict(
    stage='left out without a cascade of box heads', levels='left out at heads whose regions lie on no levels'
)


def find_head(
    model: nn.Module, role: str, stage: int | None = None, levels: Sequence[int] | None = None, strict: bool = True
) -> Any:
    """The :class:`Head` of a detector.

    Args:
        model: Any detector.
        role: ``'student'`` or ``'teacher'``, for the message.
        stage: Stage of a cascade.
        levels: Levels of a dense head.
        strict: Whether to refuse ``stage`` or ``levels`` if this head would ignore it.

    Raises:
        ValueError: No kind in ``HEADS`` recognises the model (the message lists the kinds, or says why a known
            head cannot be read), or a setting would be ignored.
    """
    roi_head = getattr(model, 'roi_head', None)
    module = getattr(roi_head, 'bbox_head', dense_module(model))
    why = refusal(module, roi_head)
    kind = next((kind for kind in HEADS if kind.recognises(model)), None)
    if kind is None or why is not None:
        head = module if module is not None else roi_head
        name = type(head).__name__ if head is not None else 'none'
        raise value_error(
            f"the {role}'s classification head",
            f'one of: {SUPPORTED}',
            f'{name} of {type(model).__name__}' + (f', where {why}' if why else ''),
            "Taps at='neck', at='backbone' and module paths work with it.",
        )
    found = kind(model, stage, levels)
    if strict:
        check_settings(stage, levels, found)
    return found


def check_settings(stage: int | None, levels: Sequence[int] | None, *heads: Head) -> None:
    """Raises a ``ValueError`` for a setting that none of these heads uses."""
    for name, value in dict(stage=stage, levels=levels).items():
        if value is not None and not any(name in head.takes for head in heads):
            raise value_error(name, MEANING[name], f'{value} for {" and ".join(head.name for head in heads)}')
    for head in heads if levels is not None else ():
        getattr(head, 'sizes', None)  # raises if a level does not exist
