"""Labels that count by a weight, such as their score, in the student's own loss.

Transforms know boxes and labels alone. A weight therefore travels with the label of its box, through crops and
mosaics, as ``label + 65536 * round(10000 * weight)``, from :class:`WeighLabels`, directly after the annotations are
loaded, to :class:`PackWeighedInputs`, which takes them apart. :class:`LabelWeightHook` multiplies the weights of the
locations and proposals that a label is assigned to, where the head has such weights.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import PackDetInputs
from mmdet.models.dense_heads import AnchorHead, ATSSHead, GFLHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules.samplers import BaseSampler, SamplingResult
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kd_ext.errors import is_number, value_error
from kd_ext.pseudo_labels.coco_file import SCORE
from kd_ext.registry import DATASETS, HOOKS, TRANSFORMS

PLACE, STEPS = 1 << 16, 10**4
# heads whose targets begin, after the anchors if there are any: labels, their weights, boxes, their weights
DENSE = [kind._get_targets_single for kind in (AnchorHead, ATSSHead, GFLHead)]


@DATASETS.register_module()
class ScoredCocoDataset(CocoDataset):
    """A ``CocoDataset`` that keeps the score of each annotation."""

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """As in ``CocoDataset``, one annotation at a time, because it drops some of them."""
        info = super().parse_data_info({**raw_data_info, 'raw_ann_info': []})
        for one in raw_data_info['raw_ann_info']:
            parsed = super().parse_data_info({**raw_data_info, 'raw_ann_info': [one]})
            info['instances'] += [{**instance, SCORE: one[SCORE]} for instance in parsed['instances']]
        return info


@TRANSFORMS.register_module()
class WeighLabels:
    """Gives each label a weight; put it directly after ``LoadAnnotations``.

    Args:
        weight: From 0 to 1, or ``'score'`` for the scores of a :class:`ScoredCocoDataset`.

    Raises:
        ValueError: ``weight`` is neither.
    """

    def __init__(self, weight: float | str = SCORE) -> None:
        if weight != SCORE and not (is_number(weight) and 0 <= float(weight) <= 1):
            raise value_error(
                'the weight of the labels', "from 0 to 1, or 'score'", repr(weight), 'For more, raise the ratio.'
            )
        self.weight = weight

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        weights = [one[SCORE] if self.weight == SCORE else self.weight for one in results['instances']]
        codes = np.round(np.array(weights, float) * STEPS).astype(np.int64)
        results['gt_bboxes_labels'] = results['gt_bboxes_labels'] + PLACE * codes
        return results


@TRANSFORMS.register_module()
class PackWeighedInputs(PackDetInputs):
    """``PackDetInputs`` that takes weights and labels apart: ``gt_instances.weights`` (N,)."""

    mapping_table = {**PackDetInputs.mapping_table, 'gt_weights': 'weights'}

    def transform(self, results: dict) -> dict:
        """Packs."""
        codes = results['gt_bboxes_labels']
        results['gt_bboxes_labels'] = codes % PLACE
        results['gt_weights'] = (codes // PLACE / STEPS).astype(np.float32)
        return super().transform(results)


@HOOKS.register_module()
class LabelWeightHook(Hook):
    """Multiplies the weights of what a label is assigned to, in its class loss and its box loss.

    It works on heads with such weights: anchor heads (RetinaNet, SSD, the RPN), RoI heads and, for the class loss
    alone, ATSS and GFL. Background counts in full.

    Raises:
        ValueError: The student has no such head.
    """

    def before_train(self, runner: Runner) -> None:
        """Wraps the functions of the heads that make targets."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        student = getattr(model, 'student', model)
        if not weigh_targets(student):
            raise value_error(
                'the student',
                'one whose head weighs labels (an anchor head, ATSS, GFL or a RoI head) for --unlabelled-weight',
                type(student).__name__,
                'Leave the weight out, and say how often unlabelled images are seen: --unlabelled-ratio.',
            )


def weigh_targets(model: torch.nn.Module) -> list[str]:
    """Makes the heads of a detector use ``gt_instances.weights``; their places in the model."""
    found = []
    for name, module in model.named_modules():
        own = getattr(type(module), '_get_targets_single', None)
        if own in DENSE:
            _wrap(module, '_get_targets_single', _dense_targets)
        elif isinstance(module, BBoxHead):
            _wrap(module, 'get_targets', _roi_targets)
        else:
            # a RoI head has the samplers of its box heads, one for each stage
            samplers = getattr(module, 'bbox_sampler', None)
            for one in samplers if isinstance(samplers, list) else [samplers]:
                if isinstance(one, BaseSampler):
                    _wrap(one, 'sample', _sampled)
            continue
        if isinstance(getattr(module, 'sampler', None), BaseSampler):
            _wrap(module.sampler, 'sample', _sampled)
        found.append(name)
    return found


def _wrap(owner: Any, name: str, change: Callable) -> None:
    old = getattr(owner, name)
    if getattr(old, 'weighs', False):
        return

    @functools.wraps(old)
    def new(*args: Any, **kwargs: Any) -> Any:
        return change(old(*args, **kwargs), *args, **kwargs)

    new.weighs = True  # type: ignore[attr-defined]
    setattr(owner, name, new)


def _sampled(result: SamplingResult, *args: Any, **kwargs: Any) -> SamplingResult:
    gt_instances = kwargs['gt_instances'] if 'gt_instances' in kwargs else args[2]
    if 'weights' in gt_instances:
        result.label_weights = gt_instances.weights[result.pos_assigned_gt_inds]
    return result


def _dense_targets(targets: tuple, *args: Any, **kwargs: Any) -> tuple:
    sampled = next((one for one in targets if isinstance(one, SamplingResult)), None)
    weights = getattr(sampled, 'label_weights', None)
    if sampled is None or weights is None or not len(weights):
        return targets
    first = 1 if targets[0].dim() == 2 else 0
    labels, label_weights, _, box_weights = targets[first : first + 4]
    # of all anchors, in the order of the sampled ones, which lack those outside of the image
    positive = (box_weights[:, 0] > 0).nonzero()[:, 0]
    weights = weights[sampled.pos_inds.argsort()].to(label_weights.dtype)
    label_weights[positive] *= weights
    box_weights[positive] *= weights[:, None]
    return targets


def _roi_targets(targets: tuple, results: list, *args: Any, **kwargs: Any) -> tuple:
    """``targets`` hold, image by image, the positive proposals and then the others."""
    labels, label_weights, _, box_weights = targets
    parts = []
    for one in results:
        weights = getattr(one, 'label_weights', None)
        ones = label_weights.new_ones(len(one.pos_inds) + len(one.neg_inds))
        if weights is not None:
            ones[: len(weights)] = weights
        parts.append(ones)
    factor = torch.cat(parts)
    label_weights *= factor
    box_weights *= factor[:, None]
    return targets
