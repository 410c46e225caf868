"""Mask losses, set aside where boxes are enough to assign regions."""

from types import SimpleNamespace

from mmengine.structures import InstanceData

from kd_ext.errors import value_error

# those that assign by masks, by class of the head
BY_MASKS = {'SOLOHead', 'MaskFormerHead'}


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
    if BY_MASKS & {kind.__name__ for kind in type(module).__mro__}:
        yield module, 'loss', _with_masks(module)


def _no_loss(*args, **kwargs):
    return {}


def _with_masks(head):
    """Its loss, with a message in place of a missing field."""
    own = head.loss

    def loss(features, data_samples, *args, **kwargs):
        if any('masks' not in sample.gt_instances for sample in data_samples):
            raise value_error(
                'the annotations',
                f'with masks, by which {type(head).__name__} assigns its regions',
                'boxes alone',
                'Load them with LoadAnnotations(with_mask=True), or take a method that reads maps.',
            )
        return own(features, data_samples, *args, **kwargs)

    return loss


def _blank_masks(loss_by_feat):
    """RTMDet-Ins turns the masks of a batch into tensors in place."""

    def loss(*args, **kwargs):
        return loss_by_feat(
            *(
                [_blank(item) for item in arg]
                if isinstance(arg, list) and arg and isinstance(arg[0], InstanceData)
                else arg
                for arg in args
            ),
            **kwargs,
        )

    return loss


def _blank(instances):
    masks = instances.bboxes.new_zeros(len(instances), 1, 1)
    blank = InstanceData(bboxes=instances.bboxes, labels=instances.labels)
    # not a field, which would have to be of the instances' length
    object.__setattr__(blank, 'masks', SimpleNamespace(to_tensor=lambda *args, **kwargs: masks))
    return blank
