"""Mask losses, set aside where boxes are enough to assign regions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable, Iterator

from mmengine.structures import InstanceData
from torch import nn

from kd_ext.errors import value_error

# classes of heads that assign by masks
BY_MASKS = {'SOLOHead', 'MaskFormerHead'}


def mask_losses(module: Any) -> Iterator[tuple[nn.Module, str, Callable]]:
    """The methods of a detector or head that read masks: the object, the method's name and a stand-in for it."""
    if hasattr(module, 'loss_mask_by_feat'):  # RTMDet-Ins
        yield module, 'loss_mask_by_feat', lambda features, *args, **kwargs: features.new_zeros(())
        yield module, 'loss_by_feat', _blank_masks(module.loss_by_feat)
    if getattr(module, 'bbox_head', None) and hasattr(module, 'mask_head'):
        yield module.mask_head, 'loss', lambda *args, **kwargs: {}  # CondInst, YOLACT
    if _assigns_by_masks(module):
        yield module, 'loss', _with_masks(module)


def needs_masks(model: nn.Module) -> bool:
    """Whether a detector has no loss on boxes alone, as its head assigns by masks."""
    return any(_assigns_by_masks(part) for part in model.children())


def _assigns_by_masks(module: Any) -> bool:
    return bool(BY_MASKS & {kind.__name__ for kind in type(module).__mro__})


def _with_masks(head: Any) -> Callable:
    """Its loss, with a message in place of a missing field."""
    own = head.loss

    def loss(features: Any, data_samples: list, *args: Any, **kwargs: Any) -> Any:
        if any('masks' not in sample.gt_instances for sample in data_samples):
            rule = f'with masks, by which {type(head).__name__} assigns its regions'
            remedy = 'Load them with LoadAnnotations(with_mask=True), or take a method that reads maps.'
            raise value_error('the annotations', rule, 'boxes alone', remedy)
        return own(features, data_samples, *args, **kwargs)

    return loss


def _blank_masks(loss_by_feat: Callable) -> Callable:
    """RTMDet-Ins turns the masks of a batch into tensors in place."""

    def loss(*args: Any, **kwargs: Any) -> Any:
        return loss_by_feat(*map(_without_masks, args), **kwargs)

    return loss


def _without_masks(value: Any) -> Any:
    of_instances = isinstance(value, list) and value and isinstance(value[0], InstanceData)
    return [_blank(item) for item in value] if of_instances else value


def _blank(instances: InstanceData) -> InstanceData:
    masks = instances.bboxes.new_zeros(len(instances), 1, 1)
    blank = InstanceData(bboxes=instances.bboxes, labels=instances.labels)
    # no field: its length would have to be that of the instances
    object.__setattr__(blank, 'masks', SimpleNamespace(to_tensor=lambda *args, **kwargs: masks))
    return blank
