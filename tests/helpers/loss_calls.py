"""Every loss of kd_ext behind one call, for the properties they share."""

from typing import Callable, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from kd_ext.losses import (
    FeatureCKALoss,
    LipschitzLoss,
    LocationKLLoss,
    LogitCKALoss,
    LogitKLLoss,
    NCKDLoss,
    NDLoss,
    RCKALoss,
    ReviewKDLoss,
    hcl_loss,
    nc1_loss,
    nc2_loss,
    nd_loss,
)

K, D = 3, 4  # classes without background, width of embeddings and means
PYRAMID = (2, 3), (3, 2)  # widths of ReviewKD's levels, student and teacher


class Batch(NamedTuple):
    """What a loss is given: levels of both sides, labels, class means."""

    student: Tuple[Tensor, ...]
    teacher: Tuple[Tensor, ...]
    labels: Optional[Tensor] = None
    means: Optional[Tensor] = None


class Loss(NamedTuple):
    """A loss as a function of a :class:`Batch`.

    Attributes:
        call: Batch -> scalar, or a dict of scalars.
        kind: Of its inputs, a key of ``loss_inputs.KINDS``.
        floor: Its value where student and teacher are equal, if it is known.
        per_image: Whether a batch's images, or regions, may be reordered.
        scales: Whether the value stays under a positive factor on the
            student alone.
    """

    call: Callable
    kind: str
    floor: Optional[float] = 0.0
    scales: bool = False


def _features(build):
    """A module on levels; made anew, as some keep means or BN statistics."""

    def call(batch):
        torch.manual_seed(0)
        return build(batch)(batch.student, batch.teacher)

    return call


def _first(build):
    """A module on one tensor."""
    return lambda batch: build(batch)(batch.student[0], batch.teacher[0])


def _review(batch):
    loss = ReviewKDLoss(*PYRAMID, mid_channels=3)
    levels = batch.student if isinstance(batch.student, tuple) else ()
    double = any(getattr(maps, 'dtype', None) == torch.float64 for maps in levels)
    return loss.double() if double else loss


def _nd(**settings):
    return lambda batch: NDLoss(num_classes=K, **settings)(
        batch.student[0], batch.teacher[0], batch.labels, batch.means
    )


def _nckd(batch):
    loss = NCKDLoss(num_classes=K, width=D)
    # as after some steps, or NC2 would have nothing to compare
    loss.student_means.copy_(torch.eye(K, D))
    loss.student_counts.fill_(5)
    return loss(batch.student[0], batch.labels, batch.means)


def _rcka(**settings):
    return _features(lambda batch: RCKALoss(patch_size=2, **settings))


LOSSES = {
    'RCKA intra': Loss(_rcka(), 'maps', None, scales=True),
    'RCKA inter': Loss(_rcka(intra_weight=0.0, inter_weight=1.0), 'maps', None, scales=True),
    'RCKA both, not centred': Loss(_rcka(inter_weight=1.0, center=False), 'maps', None, scales=True),
    'logit CKA': Loss(_first(lambda batch: LogitCKALoss()), 'logits', None, scales=True),
    'logit CKA, not centred': Loss(_first(lambda batch: LogitCKALoss(center=False)), 'logits', None, scales=True),
    'logit CKA of maps': Loss(
        lambda batch: sum(map(LogitCKALoss(), batch.student, batch.teacher)), 'maps', None, scales=True
    ),
    'logit CKA of images': Loss(
        lambda batch: sum(map(LogitCKALoss(samples='images'), batch.student, batch.teacher)), 'maps', None, scales=True
    ),
    'feature CKA': Loss(_features(lambda batch: FeatureCKALoss()), 'images', None, scales=True),
    'feature CKA, not centred': Loss(
        _features(lambda batch: FeatureCKALoss(center=False)), 'images', None, scales=True
    ),
    'KL': Loss(_first(lambda batch: LogitKLLoss(tau=2.0)), 'logits'),
    'KL of sigmoids': Loss(_first(lambda batch: LogitKLLoss(use_sigmoid=True)), 'logits'),
    'KL at all locations': Loss(lambda batch: LocationKLLoss(tau=2.0)(batch.student, batch.teacher), 'maps'),
    'HCL': Loss(lambda batch: sum(map(hcl_loss, batch.student, batch.teacher)), 'maps'),
    'ReviewKD': Loss(_features(_review), 'pyramid', None),
    'ND': Loss(_nd(), 'regions', None),
    'ND of foreground, by class': Loss(_nd(include_background=False, class_balanced=True), 'regions', None),
    'ND, direction': Loss(_nd(norm=False), 'regions', None),
    'ND, norm': Loss(_nd(direction=False), 'regions', None),
    'ND without teacher': Loss(
        lambda batch: nd_loss(batch.student[0], None, batch.labels, batch.means), 'regions', None
    ),
    'NC1': Loss(lambda batch: nc1_loss(batch.student[0], batch.labels, batch.means), 'regions', None),
    'NC2': Loss(lambda batch: nc2_loss(batch.student[0], batch.teacher[0]), 'logits', scales=True),
    'NCKD': Loss(_nckd, 'regions', None),
    'Lipschitz': Loss(_features(lambda batch: LipschitzLoss(4)), 'stages'),
    'relative Lipschitz': Loss(_features(lambda batch: LipschitzLoss(4, relative=True)), 'stages'),
}


def value_of(name, batch):
    """The loss, summed over its terms."""
    value = LOSSES[name].call(batch)
    return sum(value.values()) if isinstance(value, dict) else value


def gradients(name, batch):
    """The loss, and its gradients in the student's tensors."""
    leaves = tuple(tensor.detach().requires_grad_() for tensor in batch.student)
    value = value_of(name, batch._replace(student=leaves))
    grads = torch.autograd.grad(value, leaves, allow_unused=True)
    return value.detach(), grads
