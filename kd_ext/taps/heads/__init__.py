"""Which kind of head a detector has: the table of the region taps."""

from torch import nn

from kd_ext.errors import value_error
from kd_ext.taps.heads.base import Head, own_loss_mode, run_own_loss
from kd_ext.taps.heads.dense import DenseHead, dense_module
from kd_ext.taps.heads.dense_kinds import KINDS, dense_kind
from kd_ext.taps.heads.query import IterativeRoIHead, MaskQueryHead, QueryHead
from kd_ext.taps.heads.refused import refusal
from kd_ext.taps.heads.roi import RoIHead

__all__ = [
    'DenseHead',
    'Head',
    'IterativeRoIHead',
    'MaskQueryHead',
    'QueryHead',
    'RoIHead',
    'find_head',
    'own_loss_mode',
    'run_own_loss',
]

SUPPORTED = (
    'RoI heads (Standard, Cascade, Double, Dynamic, Grid, PISA, HTC, Sparse '
    'R-CNN, QueryInst) whose bbox_head has fc_cls; dense heads '
    f'({", ".join(name.removesuffix("Head") for name in KINDS)}); query heads '
    '(DETR, Conditional, DAB, Deformable DETR, DINO, DDQ, MaskFormer, '
    'Mask2Former)'
)


def find_head(model, role, stage=None, levels=None):
    """The :class:`Head` of a detector.

    Args:
        model (nn.Module): Any detector.
        role (str): ``'student'`` or ``'teacher'``, for the message.
        stage (int, optional): Stage of a cascade.
        levels (Sequence[int], optional): Levels of a dense head.

    Raises:
        ValueError: No head that the taps know; the message lists those, and says why one that is known cannot be
            read.
    """
    roi_head = getattr(model, 'roi_head', None)
    module = getattr(roi_head, 'bbox_head', dense_module(model))
    why = refusal(module, roi_head)
    if why is None:
        if roi_head is not None and module is not None:
            first = module[0] if isinstance(module, nn.ModuleList) else module
            layer = getattr(first, 'fc_cls', None)
            if isinstance(layer, nn.Module) and hasattr(layer, 'in_features'):
                if type(first).__name__ == 'DIIHead':
                    return IterativeRoIHead(model, stage)
                return RoIHead(model, stage)
        elif module is not None and dense_kind(module) is not None:
            return DenseHead(model, levels)
        elif hasattr(getattr(model, 'panoptic_head', None), 'cls_embed'):
            return MaskQueryHead(model)
        elif hasattr(getattr(model, 'decoder', None), 'layers') and (
            hasattr(module, 'fc_cls') or hasattr(module, 'cls_branches')
        ):
            return QueryHead(model)
    head = module if module is not None else roi_head
    raise value_error(
        f"the {role}'s classification head",
        f'one of: {SUPPORTED}',
        f'{type(head).__name__ if head is not None else "none"} of '
        f'{type(model).__name__}{f", where {why}" if why else ""}',
        "Taps at='neck', at='backbone' and module paths work with it.",
    )
