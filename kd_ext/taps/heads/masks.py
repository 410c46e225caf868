"""Mask losses of one-stage detectors, set aside where boxes are enough."""

from types import SimpleNamespace

from mmengine.structures import InstanceData


def mask_losses(module):
    """What of a detector or head reads masks beside boxes.

    Yields:
        tuple: An object, the name of its method, and what stands in for it.
    """
    if hasattr(module, 'loss_mask_by_feat'):  # RTMDet-Ins
        yield module, 'loss_mask_by_feat', _no_loss
        yield module, 'loss_by_feat', _blank_masks(module.loss_by_feat)
    if getattr(module, 'bbox_head', None) and hasattr(module, 'mask_head'):
        yield module.mask_head, 'loss', _no_loss  # CondInst, YOLACT


def _no_loss(*args, **kwargs):
    return {}


def _blank_masks(loss_by_feat):
    """RTMDet-Ins turns the masks of a batch into tensors in place."""

    def loss(*args, **kwargs):
        return loss_by_feat(*(
            [_blank(item) for item in arg] if isinstance(arg, list) and arg
            and isinstance(arg[0], InstanceData) else arg
            for arg in args), **kwargs)

    return loss


def _blank(instances):
    masks = instances.bboxes.new_zeros(len(instances), 1, 1)
    blank = InstanceData(bboxes=instances.bboxes, labels=instances.labels)
    # not a field, which would have to be of the instances' length
    object.__setattr__(blank, 'masks', SimpleNamespace(
        to_tensor=lambda *args, **kwargs: masks))
    return blank
