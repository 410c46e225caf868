"""Base classes of the heads that taps can read."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, Iterator, NamedTuple

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.taps.heads.masks import mask_losses
from kd_ext.taps.watch import Watch


class Regions(NamedTuple):
    """N regions of one batch, in one order in all fields.

    A region is a sampled proposal (RoI heads), a positive anchor or point (dense heads) or a matched query (query
    heads).

    """

    embeddings: Tensor  # (N, D), input of the classification layer
    logits: Tensor | None  # (N, K or K + 1), its output; None at places of a head with other anchors
    labels: Tensor | None  # (N,), K for background; None at places of another model
    places: Any = None  # what another model needs to read the same regions


class Head:
    """The last classification layer of one detector, created for each pass, so it may refer to modules.

    A new kind of head is a subclass that is added to ``kd_ext.taps.heads.HEADS``.
    """

    family: ClassVar[str]  # RoI, dense or query
    background: ClassVar[bool] = False  # whether label K occurs among the regions
    takes: tuple[str, ...] = ()  # the settings that this head uses, of stage and levels
    width: int  # D of the embeddings
    num_logits: int  # logits per region
    use_sigmoid: bool  # whether each class has a sigmoid of its own

    def __init__(self, model: BaseModel, module: Any) -> None:
        self.model, self.module, self.name = model, module, type(module).__name__
        self.num_classes: int = module.num_classes  # K, without background

    @classmethod
    def recognises(cls, model: nn.Module) -> bool:
        """Whether this class reads the head of ``model``."""
        raise NotImplementedError

    @property
    def num_labels(self) -> int:
        """Number of values that a label can take: K, or K + 1."""
        return self.num_classes + self.background

    def watch(self) -> Watch:
        """Context for a run of the model's own loss, after which :meth:`regions` can be called."""
        raise NotImplementedError

    def regions(self, watch: Watch) -> Regions:
        """The labelled regions of the loss that ran in ``watch``."""
        raise NotImplementedError

    def shares_places(self, other: Head) -> bool:
        """Whether :meth:`at` can read the places of ``other``, the head of another model."""
        return False

    def other_anchors(self, other: Head) -> str:
        """How the anchors at shared places differ from those of ``other``, in words; empty if they are equal."""
        return ''

    def at(self, features: tuple[Tensor, ...], places: Any) -> Regions:
        """The regions, without labels, at ``Regions.places`` of another head, from ``model.extract_feat``."""
        raise NotImplementedError

    def classifier_rows(self) -> Tensor:
        """Weights of the classification layer (rows, D), for analyses."""
        raise NotImplementedError


class LinearHead(Head):
    """A head whose last classification layer is linear: ``layer``."""

    def __init__(self, model: BaseModel, module: Any, layer: Any) -> None:
        super().__init__(model, module)
        self.layer, self.width, self.num_logits = layer, layer.in_features, layer.out_features
        self.use_sigmoid = bool(getattr(module.loss_cls, 'use_sigmoid', False))

    def classifier_rows(self) -> Tensor:
        return self.layer.weight


def stage_of(model: BaseModel, stage: int) -> Any:
    """The box head of a stage of a cascade, or a ``ValueError``."""
    heads: Any = model.roi_head.bbox_head
    if not 0 <= stage < len(heads):
        raise value_error('stage', f'in 0..{len(heads) - 1}, as {type(model.roi_head).__name__} has', stage)
    return heads[stage]


def box_head(model: nn.Module) -> nn.Module | None:
    """The (first) box head of a RoI head that classifies by a linear layer; None without one."""
    module = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    module = module[0] if isinstance(module, nn.ModuleList) else module
    layer = getattr(module, 'fc_cls', None)
    return module if isinstance(layer, nn.Module) and hasattr(layer, 'in_features') else None


@contextlib.contextmanager
def own_loss_mode(*modules: Any) -> Iterator[None]:
    """Lets detectors compute their loss in eval mode.

    Some heads output what their loss needs only while ``training`` is set. It is set on these modules alone, so
    norm and dropout layers stay frozen. Mask losses are left out: no region depends on them, and the student's
    data may lack masks.
    """
    with contextlib.ExitStack() as stack:
        for module in modules:
            part: Any = getattr(module, 'roi_head', None)
            if getattr(part, 'mask_head', None) is not None:
                stack.callback(setattr, part, 'mask_head', part._modules.pop('mask_head'))
        for owner, method, stand_in in [step for module in modules for step in mask_losses(module)]:
            owner.__dict__[method] = stand_in
            stack.callback(owner.__dict__.pop, method, None)
        for module in modules:
            stack.callback(setattr, module, 'training', module.training)
            module.training = True
        yield


def run_own_loss(model: BaseModel, head: Head, inputs: Tensor, data_samples: list) -> Regions:
    """The regions that a frozen model assigns to a batch; the random state outside is unchanged."""
    devices = [inputs.device] if inputs.is_cuda else []
    with torch.no_grad(), head.watch() as watch, own_loss_mode(model, head.module), torch.random.fork_rng(devices):
        model(inputs, data_samples, mode='loss')
    return head.regions(watch)
