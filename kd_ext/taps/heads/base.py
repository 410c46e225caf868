"""What all detection heads have in common for the taps."""

import contextlib

import torch

from kd_ext.taps.heads.masks import mask_losses


class Head:
    """The last classification layer of one detector.

    Made anew for each pass, so it may keep references to modules.

    Attributes:
        family (str): ``'RoI'``, ``'dense'`` or ``'query'``.
        name (str): Class of the detector's head.
        num_classes (int): K, without background.
        width (int): D of the embeddings.
        num_logits (int): Width of the logits of a region.
        use_sigmoid (bool): Whether each class is scored on its own.
        background (bool): Whether label K occurs among the regions.
    """

    family = None
    background = False

    def __init__(self, model, module):
        self.model, self.module = model, module
        self.name = type(module).__name__
        self.num_classes = module.num_classes

    @property
    def num_labels(self):
        """Number of values a label can take: K, or K + 1."""
        return self.num_classes + self.background

    def watch(self):
        """Context to run the model's own loss in."""
        raise NotImplementedError

    def regions(self, watch):
        """:class:`Regions` after the model's own loss ran in ``watch``."""
        raise NotImplementedError

    def shares_places(self, other):
        """Whether :meth:`at` understands the places of ``other``."""
        return False

    def at(self, features, places):
        """:class:`Regions` without labels, at the places of another head.

        Args:
            features (tuple[Tensor]): What ``model.extract_feat`` gives.
            places: The field of the other head's regions.
        """
        raise NotImplementedError

    def classifier_rows(self):
        """Weights of the classification layer (rows, D), for analyses."""
        raise NotImplementedError


@contextlib.contextmanager
def own_loss_mode(*modules):
    """Lets detectors compute their loss without leaving eval mode.

    Some heads put out what their loss needs only while ``training`` is set; it is set on these modules alone, so
    norm and dropout layers stay frozen. Mask losses are set aside: they read no regions of ours, and a student's
    data need not have masks.
    """
    before = [(module, module.training) for module in modules]
    parts = [
        (part, part._modules.pop('mask_head'))
        for part in (getattr(module, 'roi_head', None) for module in modules)
        if getattr(part, 'mask_head', None) is not None
    ]
    losses = [step for module in modules for step in mask_losses(module)]
    for owner, method, stand_in in losses:
        owner.__dict__[method] = stand_in
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
        for part, mask_head in parts:
            part.mask_head = mask_head
        for owner, method, _ in losses:
            owner.__dict__.pop(method, None)


def run_own_loss(model, head, inputs, data_samples):
    """The regions that a frozen model assigns by itself to a batch.

    Random sampling inside does not disturb the random state outside.
    """
    devices = [inputs.device] if inputs.is_cuda else []
    with torch.no_grad(), head.watch() as watch, own_loss_mode(model, head.module), torch.random.fork_rng(devices):
        model(inputs, data_samples, mode='loss')
    return head.regions(watch)
