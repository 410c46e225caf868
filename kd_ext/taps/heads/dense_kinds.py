"""Where dense heads keep their classification layer and their labels."""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from kd_ext.taps.heads.refused import REFUSED
from kd_ext.taps.watch import Watch

Sizes = List[Tuple[int, int]]  # (H, W) of all levels


class DenseKind(NamedTuple):
    """Where one kind of dense head keeps its classification layer and labels."""

    layer: str  # attribute of the classification layer
    targets: str  # method that assigns labels
    labels: Callable[[Watch, int, Sizes], Tensor]  # (B, P) of all anchors, in the order level, row, column, anchor
    before: int = 0  # outputs per anchor before the logits in the same layer
    samples: bool = False  # whether the labels need the calls of the head's sampler
    tower: str = ''  # attribute of the convolutions that lead only to the boxes


def _levels_at(index: int) -> Callable[[Watch, int, Sizes], Tensor]:
    """Labels are item ``index`` of what the method returns, by level."""

    def labels(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
        levels = watch.calls['targets'][-1].result[index]
        return torch.cat([level.reshape(batch, -1) for level in levels], 1)

    return labels


def _whole(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
    """The method returns labels (B, P) first."""
    return watch.calls['targets'][-1].result[0].reshape(batch, -1)


def _flat(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
    """The method returns the labels of all levels in one row first."""
    levels = watch.calls['targets'][-1].result[0].split([batch * height * width for height, width in sizes])
    return torch.cat([level.reshape(batch, -1) for level in levels], 1)


def _by_image(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
    """One call for each image returns its labels (P,) first."""
    return torch.stack([call.result[0] for call in watch.calls['targets'][-batch:]])


def _sampled(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
    """YOLOX: masks by image, labels from the sampler where there are any."""
    masks = [call.result[0] for call in watch.calls['targets'][-batch:]]
    # images without boxes never reach the sampler
    samples = (call.result for call in watch.calls['sampler'] if len(call.result.pos_inds))
    labels = torch.stack(masks).long() - 1
    for row, mask in zip(labels, masks):
        if bool(mask.any()):
            sample = next(samples)
            row[sample.pos_inds] = sample.pos_gt_labels
    return labels


def _selected(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
    """FSAF: a call per level says which anchors it keeps; the others are neither object nor background."""
    levels = [torch.where(call.result[2], call.args[3], -1) for call in watch.calls['targets'][-len(sizes) :]]
    return torch.cat([level.reshape(batch, -1) for level in levels], 1)


def _one_hot(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
    """YOLOv3: box (4), objectness and a one-hot label, by level."""
    maps = torch.cat(watch.calls['targets'][-1].result[0], 1)
    return torch.where(maps[..., 4] == 1, maps[..., 5:].argmax(-1), -1)


def _grids(watch: Watch, batch: int, sizes: Sizes) -> Tensor:
    """SOLO: one call for each image returns its grids (S, S) second."""
    return torch.stack(
        [torch.cat([grid.flatten() for grid in call.result[1]]) for call in watch.calls['targets'][-batch:]]
    )


BOXES = 'reg_convs'
# by class name; the nearest base class counts
KINDS: dict[Any, DenseKind] = dict(
    FCOSHead=DenseKind('conv_cls', 'get_targets', _levels_at(0), tower=BOXES),
    FoveaHead=DenseKind('conv_cls', 'get_targets', _flat),
    RetinaHead=DenseKind('retina_cls', 'get_targets', _levels_at(0), tower=BOXES),
    RetinaSepBNHead=DenseKind('retina_cls', 'get_targets', _levels_at(0), tower=BOXES),
    SABLRetinaHead=DenseKind('retina_cls', 'get_targets', _levels_at(0), tower=BOXES),
    ATSSHead=DenseKind('atss_cls', 'get_targets', _levels_at(1), tower=BOXES),
    DDODHead=DenseKind('atss_cls', 'get_cls_targets', _levels_at(1), tower=BOXES),
    PAAHead=DenseKind('atss_cls', 'paa_reassign', _by_image, tower=BOXES),
    GFLHead=DenseKind('gfl_cls', 'get_targets', _levels_at(1), tower=BOXES),
    VFNetHead=DenseKind('vfnet_cls', 'get_targets', _levels_at(0)),
    TOODHead=DenseKind('tood_cls', 'get_targets', _levels_at(1)),
    RTMDetHead=DenseKind('rtm_cls', 'get_targets', _levels_at(1), tower=BOXES),
    YOLOFHead=DenseKind('cls_score', 'get_targets', _whole),
    YOLOXHead=DenseKind(
        'multi_level_conv_cls', '_get_targets_single', _sampled, samples=True, tower='multi_level_reg_convs'
    ),
    SSDHead=DenseKind('cls_convs', 'get_targets', _levels_at(0)),
    RepPointsHead=DenseKind('reppoints_cls_out', 'get_targets', _levels_at(0)),
    FSAFHead=DenseKind('retina_cls', 'reweight_loss_single', _selected, tower=BOXES),
    YOLACTHead=DenseKind('conv_cls', 'get_targets', _levels_at(0)),
    YOLOV3Head=DenseKind('convs_pred', 'get_targets', _one_hot, 5),
    SOLOHead=DenseKind('conv_cls', '_get_targets_single', _grids),
    SOLOV2Head=DenseKind('conv_cls', '_get_targets_single', _grids),
)


def dense_kind(module: nn.Module) -> Any:
    """The :class:`DenseKind` of a head; None for unknown heads and for subclasses that assign in another way."""
    names = [kind.__name__ for kind in type(module).__mro__]
    name = next((name for name in names if name in KINDS or name in REFUSED), None)
    return None if name in REFUSED else KINDS.get(name)
