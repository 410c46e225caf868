"""RoI heads: the sampled proposals of two-stage detectors."""

from mmdet.structures.bbox import bbox2roi
from torch import nn

from kd_ext.errors import value_error
from kd_ext.taps.heads.base import Head
from kd_ext.taps.regions import Regions
from kd_ext.taps.watch import Watch


def _rois(samples, *_):
    """The sampled proposals, before Grid R-CNN moves them."""
    return (bbox2roi([sample.priors for sample in samples]),)


class RoIHead(Head):
    """``roi_head.bbox_head`` of Faster, Mask, Cascade, Double-Head R-CNN.

    A region is a proposal that the detector samples for its own loss, by default the first stage's of a cascade:
    the one that sees the proposals of the RPN, as a head without a cascade does.

    Args:
        model (nn.Module): The detector.
        stage (int): Stage of a cascade; without a cascade it is not used.

    Raises:
        ValueError: No such stage.
    """

    family = 'RoI'
    background = True

    def __init__(self, model, stage=None):
        self.roi_head = model.roi_head
        module = self.roi_head.bbox_head
        self.stage = None
        if isinstance(module, nn.ModuleList):
            self.stage = 0 if stage is None else stage
            if not 0 <= self.stage < len(module):
                raise value_error('stage', f'in 0..{len(module) - 1}, as {type(self.roi_head).__name__} has', stage)
            module = module[self.stage]
        super().__init__(model, module)
        layer = module.fc_cls
        self.width = layer.in_features
        self.num_logits = layer.out_features
        self.use_sigmoid = bool(getattr(module.loss_cls, 'use_sigmoid', False))

    def watch(self):
        return Watch(layer=self.module.fc_cls, targets=(self.module, 'get_targets', _rois))

    def regions(self, watch):
        call, targets = watch.calls['layer'][-1], watch.calls['targets'][-1]
        return Regions(call.args[0], call.result, targets.result[0], targets.args[0])

    def shares_places(self, other):
        return other.family == self.family

    def at(self, features, places):
        with Watch(layer=self.module.fc_cls) as watch:
            stage = () if self.stage is None else (self.stage,)
            self.roi_head._bbox_forward(*stage, features, places, **self._context(features))
        call = watch.calls['layer'][-1]
        return Regions(call.args[0], call.result, None, places)

    def _context(self, features):
        """What HTC and SCNet feed their box heads besides the regions."""
        context = {}
        if getattr(self.roi_head, 'semantic_head', None) is not None:
            context['semantic_feat'] = self.roi_head.semantic_head(features)[1]
        if getattr(self.roi_head, 'glbctx_head', None) is not None:
            context['glbctx_feat'] = self.roi_head.glbctx_head(features)[1]
        return context

    def classifier_rows(self):
        return self.module.fc_cls.weight
