"""Which kind of head a detector has: the table of the region taps."""

from torch import nn

from kd_ext.messages import expected
from .base import Head, own_loss_mode, run_own_loss
from .dense import KINDS, DenseHead, dense_kind
from .query import IterativeRoIHead, QueryHead
from .roi import RoIHead

__all__ = ['DenseHead', 'Head', 'IterativeRoIHead', 'QueryHead', 'RoIHead',
           'find_head', 'own_loss_mode', 'run_own_loss']

SUPPORTED = (
    'RoI heads (Standard, Cascade, Double, Dynamic, HTC, Sparse R-CNN) whose '
    'bbox_head has fc_cls; dense heads '
    f'({", ".join(name.removesuffix("Head") for name in KINDS)}); query heads '
    '(DETR, Conditional, DAB, Deformable DETR, DINO)')


def find_head(model, role, stage=None, levels=None):
    """The :class:`Head` of a detector.

    Args:
        model (nn.Module): Any detector.
        role (str): ``'student'`` or ``'teacher'``, for the message.
        stage (int, optional): Stage of a cascade.
        levels (Sequence[int], optional): Levels of a dense head.

    Raises:
        ValueError: No head that the taps know; the message lists those.
    """
    roi_head = getattr(model, 'roi_head', None)
    module = getattr(roi_head, 'bbox_head', getattr(model, 'bbox_head', None))
    if roi_head is not None and module is not None:
        first = module[0] if isinstance(module, nn.ModuleList) else module
        if isinstance(getattr(first, 'fc_cls', None), nn.Module) and hasattr(
                first.fc_cls, 'in_features'):
            if type(first).__name__ == 'DIIHead':
                return IterativeRoIHead(model, stage)
            return RoIHead(model, stage)
    elif module is not None and dense_kind(module) is not None:
        return DenseHead(model, levels)
    elif hasattr(model, 'decoder') and hasattr(model.decoder, 'layers') and (
            hasattr(module, 'fc_cls') or hasattr(module, 'cls_branches')):
        return QueryHead(model)
    head = module if module is not None else roi_head
    raise ValueError(expected(
        f'the {role}\'s classification head', f'one of: {SUPPORTED}',
        f'{type(head).__name__ if head is not None else "none"} of '
        f'{type(model).__name__}',
        "Taps at='neck', at='backbone' and module paths work with it."))
