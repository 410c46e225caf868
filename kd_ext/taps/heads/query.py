"""Query heads: the matched queries of the last decoder layer.

Queries have no places, so another detector's queries are other regions.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from kd_ext.taps.heads.base import LinearHead, Regions, box_head, stage_of
from kd_ext.taps.watch import Watch


class QueryHead(LinearHead):
    """``bbox_head`` of DETR, Conditional, DAB, Deformable DETR, DINO, DDQ.

    ``num_layers`` is 1 plus the index of the last decoder layer among the calls of ``get_targets``.
    """

    family = 'query'

    def __init__(self, model: BaseModel, stage: int | None = None, levels: Any = None) -> None:
        module: Any = model.bbox_head
        self.num_layers = len(model.decoder.layers)
        layer = getattr(module, 'fc_cls', None)
        super().__init__(model, module, module.cls_branches[self.num_layers - 1] if layer is None else layer)

    @classmethod
    def recognises(cls, model: nn.Module) -> bool:
        head = getattr(model, 'bbox_head', None)
        layers = hasattr(getattr(model, 'decoder', None), 'layers')
        return layers and (hasattr(head, 'fc_cls') or hasattr(head, 'cls_branches'))

    def watch(self) -> Watch:
        return Watch(layer=self.layer, targets=(self.module, 'get_targets'))

    def regions(self, watch: Watch) -> Regions:
        call = watch.calls['layer'][-1]
        # DETR's layer sees all decoder layers at once: (L, B, Q, D)
        embeddings, logits = (tensor[-1] if tensor.dim() == 4 else tensor for tensor in (call.args[0], call.result))
        # decoder layers come first, proposals of the encoder after them
        labels = torch.stack(list(watch.calls['targets'][self.num_layers - 1].result[0]))
        # queries for denoising come before those that are matched
        embeddings, logits = (tensor[:, -labels.shape[1] :].flatten(0, 1) for tensor in (embeddings, logits))
        return self._matched(embeddings, logits, labels.flatten())

    def _matched(self, embeddings: Tensor, logits: Tensor, labels: Tensor) -> Regions:
        matched = ((labels >= 0) & (labels < self.num_classes)).nonzero()[:, 0]
        return Regions(embeddings[matched], logits[matched], labels[matched])


class MaskQueryHead(QueryHead):
    """``panoptic_head`` of Mask2Former and MaskFormer: queries with masks."""

    def __init__(self, model: BaseModel, stage: int | None = None, levels: Any = None) -> None:
        # one matching for each prediction, the last layer's at the end
        self.num_layers = 0
        module: Any = model.panoptic_head
        LinearHead.__init__(self, model, module, module.cls_embed)

    @classmethod
    def recognises(cls, model: nn.Module) -> bool:
        return hasattr(getattr(model, 'panoptic_head', None), 'cls_embed')


class IterativeRoIHead(QueryHead):
    """``roi_head`` of Sparse R-CNN and QueryInst: the matches of a stage, by default the last.

    The box head's input holds learnt features of each proposal, so another detector's proposals are other regions,
    as with queries.
    """

    takes = ('stage',)

    def __init__(self, model: BaseModel, stage: int | None = None, levels: Any = None) -> None:
        module = stage_of(model, len(model.roi_head.bbox_head) - 1 if stage is None else stage)
        LinearHead.__init__(self, model, module, module.fc_cls)

    @classmethod
    def recognises(cls, model: nn.Module) -> bool:
        return type(box_head(model)).__name__ == 'DIIHead'

    def regions(self, watch: Watch) -> Regions:
        call = watch.calls['layer'][-1]
        labels = watch.calls['targets'][-1].result[0]
        embeddings, logits = (tensor.reshape(len(labels), tensor.shape[-1]) for tensor in (call.args[0], call.result))
        return self._matched(embeddings, logits, labels)
