"""RoI heads: the sampled proposals of two-stage detectors."""

from __future__ import annotations

from typing import Any

from mmdet.structures.bbox import bbox2roi
from mmengine.model import BaseModel
from torch import Tensor, nn

from kd_ext.taps.heads.base import Head, LinearHead, Regions, box_head, stage_of
from kd_ext.taps.watch import Watch


def _rois(samples: list, *_: Any) -> tuple[Tensor]:
    """The sampled proposals, before Grid R-CNN moves them."""
    return (bbox2roi([sample.priors for sample in samples]),)


class RoIHead(LinearHead):
    """``roi_head.bbox_head`` of Faster, Mask, Cascade, Double-Head R-CNN.

    A region is a proposal that the detector samples for its own loss. In a cascade the default is the first stage,
    which gets the proposals of the RPN like a head without a cascade.

    Raises:
        ValueError: The stage does not exist.
    """

    family = 'RoI'
    background = True

    def __init__(self, model: BaseModel, stage: int | None = None, levels: Any = None) -> None:
        self.roi_head = model.roi_head
        module: Any = self.roi_head.bbox_head
        self.stage: tuple[int, ...] = ()
        if isinstance(module, nn.ModuleList):
            self.takes, self.stage = ('stage',), (stage or 0,)
            module = stage_of(model, self.stage[0])
        super().__init__(model, module, module.fc_cls)

    @classmethod
    def recognises(cls, model: nn.Module) -> bool:
        return box_head(model) is not None

    def watch(self) -> Watch:
        return Watch(layer=self.layer, targets=(self.module, 'get_targets', _rois))

    def regions(self, watch: Watch) -> Regions:
        call, targets = watch.calls['layer'][-1], watch.calls['targets'][-1]
        return Regions(call.args[0], call.result, targets.result[0], targets.args[0])

    def shares_places(self, other: Head) -> bool:
        return other.family == self.family

    def at(self, features: tuple[Tensor, ...], places: Tensor) -> Regions:
        with Watch(layer=self.layer) as watch:
            self.roi_head._bbox_forward(*self.stage, features, places, **self._context(features))
        call = watch.calls['layer'][-1]
        return Regions(call.args[0], call.result, None, places)

    def _context(self, features: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Additional inputs of the box heads of HTC and SCNet."""
        parts = dict(semantic_feat='semantic_head', glbctx_feat='glbctx_head')
        modules = {name: getattr(self.roi_head, part, None) for name, part in parts.items()}
        return {name: module(features)[1] for name, module in modules.items() if module is not None}
