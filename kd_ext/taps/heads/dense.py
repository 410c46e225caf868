"""Dense heads: the positive anchors and points of one-stage detectors."""

import contextlib
from typing import List, NamedTuple

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from kd_ext.errors import value_error
from kd_ext.taps.heads.base import Head
from kd_ext.taps.heads.dense_kinds import dense_kind
from kd_ext.taps.regions import Regions
from kd_ext.taps.watch import Watch


class Places(NamedTuple):
    """Positive anchors: level sizes, and image, location and anchor each."""

    sizes: list  # (H, W) of the levels in use
    where: List[tuple]  # per level: image (n,), location (n,), anchor (n,)


def dense_module(model):
    """``bbox_head``, or SOLO's ``mask_head``; None without one."""
    module = getattr(model, 'bbox_head', None)
    return module or getattr(model, 'mask_head', None)


def _convolution(layer):
    """The last convolution of a layer (or prototypes in its place)."""
    return [m for m in layer.modules() if hasattr(m, 'in_channels')][-1]


@contextlib.contextmanager
def _skipping(layers):
    """Context in which these layers pass on what they are given."""
    for layer in layers:
        layer.__dict__['forward'] = lambda maps: maps
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop('forward', None)


class DenseHead(Head):
    """``bbox_head`` of FCOS, RetinaNet, ATSS, GFL, YOLOX, SSD and others.

    A region is an anchor or point that the head assigns to an object; its embedding is the input of the
    classification layer at that location.

    Args:
        model (nn.Module): The detector.
        levels (Sequence[int], optional): Levels to read, all of one width. By default all that are as wide as the
            finest one; that is a part of them in SSD alone.

    Raises:
        ValueError: ``levels`` do not exist or differ in width.
    """

    family = 'dense'

    def __init__(self, model, levels=None):
        super().__init__(model, dense_module(model))
        self.kind = dense_kind(self.module)
        layers = getattr(self.module, self.kind.layer)
        self.layers = list(layers) if isinstance(layers, nn.ModuleList) else [layers]
        convolutions = [_convolution(layer) for layer in self.layers]
        widths = [conv.in_channels for conv in convolutions]
        # one layer for all levels leaves the number of levels open
        self.levels = levels
        if len(widths) > 1:
            self.levels = self._checked(levels, widths)
            widths = [widths[level] for level in self.levels]
        self.width = widths[0]
        self.num_logits = getattr(self.module, 'cls_out_channels', self.num_classes)
        self.outputs = self.kind.before + self.num_logits
        loss_cls = getattr(self.module, 'loss_cls', None)
        self.use_sigmoid = bool(getattr(self.module, 'use_sigmoid_cls', getattr(loss_cls, 'use_sigmoid', False)))

    def _checked(self, levels, widths):
        if levels is None:
            return [i for i, width in enumerate(widths) if width == widths[0]]
        levels = [levels] if isinstance(levels, int) else list(levels)
        if not levels or not all(0 <= i < len(widths) for i in levels) or len({widths[i] for i in levels}) > 1:
            raise value_error(
                'levels', f'levels of one width among those of {self.name}, which has {widths}', tuple(levels)
            )
        return levels

    def watch(self):
        targets = dict(targets=(self.module, self.kind.targets))
        if self.kind.samples:
            targets['sampler'] = (self.module.sampler, 'sample')
        return Watch(layer=self.layers, **targets)

    def sizes(self, features):
        """(H, W) of the levels that the head scores: list."""
        with torch.no_grad(), Watch(layer=self.layers) as watch:
            self.module(features)
        calls = watch.calls['layer']
        return [tuple(calls[level].args[0].shape[2:]) for level in self._used(len(calls))]

    def _used(self, num_levels):
        if self.levels is None:
            return range(num_levels)
        if max(self.levels) >= num_levels:
            raise value_error('levels', f'within 0..{num_levels - 1}, as {self.name} has', tuple(self.levels))
        return self.levels

    def regions(self, watch):
        calls = watch.calls['layer']
        sizes = [call.args[0].shape[2:] for call in calls]
        batch = len(calls[0].args[0])
        labels = self.kind.labels(watch, batch, sizes)
        anchors = [call.result.shape[1] // self.outputs for call in calls]
        by_level = labels.split([h * w * a for (h, w), a in zip(sizes, anchors)], 1)
        used, found, where = self._used(len(calls)), [], []
        for level in used:
            assigned = by_level[level]
            positive = (assigned >= 0) & (assigned < self.num_classes)
            image, index = positive.nonzero(as_tuple=True)
            found.append(assigned[image, index])
            where.append((image, index // anchors[level], index % anchors[level]))
        places = Places([tuple(sizes[level]) for level in used], where)
        return self._gather(calls, places)._replace(labels=torch.cat(found))

    def _gather(self, calls, places):
        """Embeddings and logits of these calls at these places."""
        embeddings, logits = [], []
        for level, (image, location, anchor) in zip(self._used(len(calls)), places.where):
            maps, scores = calls[level].args[0], calls[level].result
            embeddings.append(maps.flatten(2)[image, :, location])
            scores = scores.flatten(2).unflatten(1, (-1, self.outputs))[:, :, self.kind.before :]
            # heads with other numbers of anchors share embeddings only
            anchor = anchor.clamp(max=scores.shape[1] - 1)
            logits.append(scores[image, anchor, :, location])
        return Regions(torch.cat(embeddings), torch.cat(logits), None, places)

    def shares_places(self, other):
        return other.family == self.family

    def _box_layers(self):
        """Layers that lead to the boxes alone and keep the width: a head of mmdet does without them where only its
        scores are read."""
        head, name = self.module, self.kind.tower
        if not name or not type(head).__module__.startswith('mmdet.'):
            return []
        # RTMDet-Ins keeps the layers of its scores under this name as well
        others = {layer for key, part in head.named_children() if key != name for layer in part.modules()}
        return [
            layer
            for layer in getattr(head, name).modules()
            if isinstance(layer, ConvModule) and layer not in others and layer.in_channels == layer.out_channels
        ]

    def at(self, features, places):
        with Watch(layer=self.layers) as watch, _skipping(self._box_layers()):
            self.module(features)
        calls = watch.calls['layer']
        sizes = [tuple(calls[level].args[0].shape[2:]) for level in self._used(len(calls))]
        if sizes != places.sizes:
            raise value_error(
                f"the levels of the teacher's {self.name}", f"of sizes {places.sizes}, as the student's", sizes
            )
        return self._gather(calls, places)

    def classifier_rows(self) -> Tensor:
        """The centre of the kernel, summed over anchors: (K or K + 1, D)."""
        rows = [_convolution(layer).weight for layer in dict.fromkeys(self.layers)][0]
        height, width = rows.shape[2:]
        rows = rows[:, :, height // 2, width // 2]
        return rows.unflatten(0, (-1, self.outputs)).mean(0)[self.kind.before :]
