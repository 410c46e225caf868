"""Query heads: the matched queries of the last decoder layer."""

import torch

from kd_ext.taps.heads.base import Head
from kd_ext.taps.regions import Regions
from kd_ext.taps.watch import Watch


class QueryHead(Head):
    """``bbox_head`` of DETR, Conditional, DAB, Deformable DETR, DINO, DDQ.

    Queries have no places: those of another detector are other regions.
    """

    family = 'query'

    def __init__(self, model, stage=None):
        module = model.bbox_head
        super().__init__(model, module)
        self.num_layers = len(model.decoder.layers)
        layer = getattr(module, 'fc_cls', None)
        if layer is None:
            layer = module.cls_branches[self.num_layers - 1]
        self.layer = layer
        self.width, self.num_logits = layer.in_features, layer.out_features
        self.use_sigmoid = bool(module.loss_cls.use_sigmoid)

    def watch(self):
        return Watch(layer=self.layer, targets=(self.module, 'get_targets'))

    def regions(self, watch):
        call = watch.calls['layer'][-1]
        # DETR's layer sees all decoder layers at once: (L, B, Q, D)
        embeddings, logits = (tensor[-1] if tensor.dim() == 4 else tensor for tensor in (call.args[0], call.result))
        # decoder layers come first, proposals of the encoder after them
        labels = watch.calls['targets'][self.num_layers - 1].result[0]
        labels = torch.stack(list(labels))
        # queries for denoising come before those that are matched
        embeddings, logits = (tensor[:, -labels.shape[1] :].flatten(0, 1) for tensor in (embeddings, logits))
        labels = labels.flatten()
        matched = ((labels >= 0) & (labels < self.num_classes)).nonzero()[:, 0]
        return Regions(embeddings[matched], logits[matched], labels[matched])

    def classifier_rows(self):
        return self.layer.weight


class MaskQueryHead(QueryHead):
    """``panoptic_head`` of Mask2Former and MaskFormer: queries with masks."""

    def __init__(self, model, stage=None):
        Head.__init__(self, model, model.panoptic_head)
        # one matching for each prediction, the last layer's at the end
        self.num_layers = 0
        self.layer = self.module.cls_embed
        self.width = self.layer.in_features
        self.num_logits = self.layer.out_features
        self.use_sigmoid = bool(self.module.loss_cls.use_sigmoid)


class IterativeRoIHead(QueryHead):
    """``roi_head`` of Sparse R-CNN and QueryInst: the last stage's matches.

    The box head's input holds learnt features of each proposal, so another detector's proposals are other regions,
    as with queries.
    """

    def __init__(self, model, stage=None):
        module = model.roi_head.bbox_head[-1 if stage is None else stage]
        Head.__init__(self, model, module)
        self.num_layers = 1
        self.layer = module.fc_cls
        self.width = self.layer.in_features
        self.num_logits = self.layer.out_features
        self.use_sigmoid = bool(module.loss_cls.use_sigmoid)

    def regions(self, watch):
        call = watch.calls['layer'][-1]
        labels = watch.calls['targets'][-1].result[0]
        embeddings, logits = (tensor.reshape(len(labels), tensor.shape[-1]) for tensor in (call.args[0], call.result))
        matched = ((labels >= 0) & (labels < self.num_classes)).nonzero()[:, 0]
        return Regions(embeddings[matched], logits[matched], labels[matched])
