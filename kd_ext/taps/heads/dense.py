"""Dense heads: the positive anchors and points of one-stage detectors."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModel
from torch import Tensor, nn

from kd_ext.build.probe import probing
from kd_ext.errors import value_error
from kd_ext.taps.heads.base import Head, Regions
from kd_ext.taps.heads.dense_kinds import dense_kind
from kd_ext.taps.watch import Call, Watch


class Places(NamedTuple):
    """Positive anchors: level sizes, and image, location and anchor each."""

    sizes: list[tuple[int, ...]]  # (H, W, A) of the levels in use: locations, and anchors at each
    where: list[tuple[Tensor, Tensor, Tensor]]  # per level: image (n,), location (n,), anchor (n,)


def _divmod(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return index // size, index % size


def dense_module(model: nn.Module) -> nn.Module | None:
    """``bbox_head``, or SOLO's ``mask_head``; None without one."""
    module = getattr(model, 'bbox_head', None)
    return module or getattr(model, 'mask_head', None)


def _same_levels(sizes: list[tuple[int, ...]], others: list[tuple[int, ...]]) -> bool:
    return [size[:2] for size in sizes] == [size[:2] for size in others]


def _convolution(layer: nn.Module) -> Any:
    """The last convolution of a layer (or prototypes in its place)."""
    return [m for m in layer.modules() if hasattr(m, 'in_channels')][-1]


@contextlib.contextmanager
def _skipping(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Context in which these layers return their input."""
    for layer in layers:
        layer.__dict__['forward'] = lambda maps: maps
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop('forward', None)


class DenseHead(Head):
    """``bbox_head`` of FCOS, RetinaNet, ATSS, GFL, YOLOX, SSD and others.

    A region is an anchor or point that the head assigns to an object. Its embedding is the input of the
    classification layer at that location. By default it reads all levels that are as wide as the finest one; only
    SSD has others.

    Raises:
        ValueError: ``levels`` do not exist or differ in width.
    """

    family = 'dense'
    takes = ('levels',)

    def __init__(self, model: BaseModel, stage: int | None = None, levels: Sequence[int] | None = None) -> None:
        super().__init__(model, dense_module(model))
        self.kind = dense_kind(self.module)
        layers: Any = getattr(self.module, self.kind.layer)
        self.layers = list(layers) if isinstance(layers, nn.ModuleList) else [layers]
        widths = [_convolution(layer).in_channels for layer in self.layers]
        # one layer for all levels does not tell their number
        self.levels = levels
        if len(widths) > 1:
            self.levels = self._checked(levels, widths)
            widths = [widths[level] for level in self.levels]
        self.width = widths[0]
        self.num_logits = getattr(self.module, 'cls_out_channels', self.num_classes)
        self.outputs = self.kind.before + self.num_logits
        loss_cls = getattr(self.module, 'loss_cls', None)
        self.use_sigmoid = bool(getattr(self.module, 'use_sigmoid_cls', getattr(loss_cls, 'use_sigmoid', False)))

    @classmethod
    def recognises(cls, model: nn.Module) -> bool:
        module = dense_module(model)
        return getattr(model, 'roi_head', None) is None and module is not None and dense_kind(module) is not None

    def _checked(self, levels: Sequence[int] | None, widths: list[int]) -> Sequence[int]:
        if levels is None:
            return [i for i, width in enumerate(widths) if width == widths[0]]
        levels = [levels] if isinstance(levels, int) else list(levels)
        if not levels or not all(0 <= i < len(widths) for i in levels) or len({widths[i] for i in levels}) > 1:
            rule = f'levels of one width among those of {self.name}, which has {widths}'
            raise value_error('levels', rule, tuple(levels))
        return levels

    def watch(self) -> Watch:
        targets: dict[str, Any] = dict(targets=(self.module, self.kind.targets))
        if self.kind.samples:
            targets['sampler'] = (self.module.sampler, 'sample')
        return Watch(layer=self.layers, **targets)

    @functools.cached_property
    def sizes(self) -> list[tuple[int, ...]]:
        """(H, W, A) of the levels that the head scores on a blank image: locations, and anchors at each."""
        with probing(self.model) as image, Watch(layer=self.layers) as watch:
            self.module(self.model.extract_feat(image))
        return self._sizes(watch.calls['layer'])

    def shares_places(self, other: Head) -> bool:
        return isinstance(other, DenseHead) and _same_levels(self.sizes, other.sizes)

    def other_anchors(self, other: Head) -> str:
        assert isinstance(other, DenseHead)
        counts = [max(size[2] for size in head.sizes) for head in (self, other)]
        if [size[2] for size in self.sizes] != [size[2] for size in other.sizes]:
            return f'{counts[0]} of {self.name} and {counts[1]} of {other.name} at each location'
        boxes = [getattr(getattr(head.module, 'prior_generator', None), 'base_anchors', []) for head in (self, other)]
        if counts[0] == 1 or all(
            mine.shape == theirs.shape and torch.allclose(mine, theirs, rtol=1e-2, atol=0.5)
            for mine, theirs in zip(*boxes)
        ):
            return ''
        return f'{counts[0]} of other sizes at each location of {self.name} and {other.name}'

    def _used(self, num_levels: int) -> Sequence[int]:
        if self.levels is None:
            return range(num_levels)
        if max(self.levels) >= num_levels:
            raise value_error('levels', f'within 0..{num_levels - 1}, as {self.name} has', tuple(self.levels))
        return self.levels

    def _sizes(self, calls: list[Call]) -> list[tuple[int, ...]]:
        used = [calls[level] for level in self._used(len(calls))]
        return [(*call.args[0].shape[2:], call.result.shape[1] // self.outputs) for call in used]

    def regions(self, watch: Watch) -> Regions:
        calls = watch.calls['layer']
        sizes = [call.args[0].shape[2:] for call in calls]
        labels = self.kind.labels(watch, len(calls[0].args[0]), sizes)
        anchors = [call.result.shape[1] // self.outputs for call in calls]
        by_level = labels.split([h * w * a for (h, w), a in zip(sizes, anchors)], 1)
        used = self._used(len(calls))
        joined = torch.cat([by_level[level].flatten() for level in used])
        positive = (joined >= 0) & (joined < self.num_classes)
        # the counts arrive while nonzero, which says how many there are, waits for a GPU: one wait for all levels
        numbers = [by_level[level].numel() for level in used]
        counts = torch.stack([part.sum() for part in positive.split(numbers)]).to('cpu', non_blocking=True)
        chosen = positive.nonzero()[:, 0]
        where, start = [], 0
        for level, part, number in zip(used, chosen.split(counts.tolist()), numbers):
            image, index = _divmod(part - start, by_level[level].shape[1])
            where.append((image, *_divmod(index, anchors[level])))
            start += number
        return self._gather(calls, Places(self._sizes(calls), where))._replace(labels=joined[chosen])

    def _gather(self, calls: list[Call], places: Places) -> Regions:
        """Embeddings and logits of these calls at these places; no logits if the anchors differ."""
        embeddings, logits = [], []
        same = self._sizes(calls) == places.sizes
        for level, (image, location, anchor) in zip(self._used(len(calls)), places.where):
            maps, scores = calls[level].args[0], calls[level].result
            embeddings.append(maps.flatten(2)[image, :, location])
            if same:
                scores = scores.flatten(2).unflatten(1, (-1, self.outputs))[:, :, self.kind.before :]
                logits.append(scores[image, anchor, :, location])
        return Regions(torch.cat(embeddings), torch.cat(logits) if same else None, None, places)

    def _box_layers(self) -> list[nn.Module]:
        """Layers that lead only to the boxes and keep the width; mmdet's heads compute scores without them."""
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

    def at(self, features: tuple[Tensor, ...], places: Places) -> Regions:
        with Watch(layer=self.layers) as watch, _skipping(self._box_layers()):
            self.module(features)
        sizes = self._sizes(watch.calls['layer'])
        if not _same_levels(sizes, places.sizes):
            rule = f"of sizes {places.sizes}, as the student's"
            raise value_error(f"the levels of the teacher's {self.name}", rule, sizes)
        return self._gather(watch.calls['layer'], places)

    def classifier_rows(self) -> Tensor:
        """The centre of the kernel, averaged over anchors: (K or K + 1, D)."""
        rows = _convolution(self.layers[0]).weight
        height, width = rows.shape[2:]
        rows = rows[:, :, height // 2, width // 2]
        return rows.unflatten(0, (-1, self.outputs)).mean(0)[self.kind.before :]
