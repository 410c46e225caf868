"""Checks that the teacher recognises the images as the distillation feeds them to it.

On a few labelled images, the teacher's own detection loss is compared with that of the same network untrained, and
with its loss under other common normalisations. A teacher that is no better than untrained, or better with another
channel order, was loaded or configured wrongly.
"""

from __future__ import annotations

import copy
import time
from types import SimpleNamespace
from typing import Any, Iterator, Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_ext.data.regions import alone, late, unaugmented
from kd_ext.preflight.finding import Finding, fatal, warning
from kd_ext.taps.heads import own_loss_mode
from kd_ext.taps.heads.dense import dense_module
from kd_ext.taps.heads.masks import needs_masks
from kd_ext.teachers.build import initialise
from kd_ext.teachers.class_map import ClassMap
from kd_ext.teachers.inputs import InputAdapter

RGB = [123.675, 116.28, 103.53]
SPREAD = [58.395, 57.12, 57.375]
# mean, std, bgr_to_rgb of common recipes
NORMALISATIONS = {
    'RGB, mean and std of torchvision': (RGB, SPREAD, True),
    'BGR, mean and std of torchvision': (RGB[::-1], SPREAD[::-1], False),
    'BGR, mean of Caffe, std 1': ([103.53, 116.28, 123.675], [1.0] * 3, False),
    'RGB in 0..1': ([0.0] * 3, [255.0] * 3, True),
    'BGR in 0..255': ([0.0] * 3, [1.0] * 3, False),
}
FLOOR = 0.9  # a teacher's loss must be below this share of the untrained loss
SUSPECT, WRONG = 0.985, 0.9  # a loss with other inputs below these shares of the configured one: warning, error
# stop after so many seconds, if at least so many images are done
SECONDS, LEAST = 15.0, 2


class TeacherScore:
    """A teacher's losses on a few images: as configured, untrained, and with other normalisations.

    Args:
        model: A DetectionDistill with its teachers loaded.
        name: The teacher to score.
        batches: One image each, collated, not preprocessed.
        classes: Maps the images' labels to the teacher's.
        thorough: Whether to try other normalisations.
        seconds: Time after which no further image is started.

    Attributes:
        batches: The images that were scored, preprocessed.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        batches: Sequence[dict],
        classes: ClassMap,
        thorough: bool = True,
        seconds: float = SECONDS,
    ) -> None:
        self.student, self.teacher = model.student, model.teachers[name]
        self.batches: list[dict] = []
        for batch in batches:
            with unaugmented(model.data_preprocessor):
                batch = model.data_preprocessor(batch, True)
            samples = classes.to_teacher(batch['data_samples'])
            instances = samples[0].gt_instances
            if len(instances) and ('masks' in instances or not needs_masks(self.teacher)):
                self.batches.append(dict(batch, data_samples=samples))
        self.configured = self.untrained = torch.zeros(0)
        self.others: dict[str, Any] = {}
        if not self.batches:
            return
        used = model.adapters[name]
        forms = [(self.teacher, used), (_untrained(self.teacher), used)]
        for kind, recipe in NORMALISATIONS.items() if thorough else ():
            adapter = self._adapter(*recipe)
            if not self._is_configured(adapter, used):
                self.others[kind] = None
                forms.append((self.teacher, adapter))
        losses = self._losses(forms, time.perf_counter() + seconds)
        self.configured, self.untrained, *others = losses
        self.others.update(zip(self.others, others))

    def _adapter(self, mean: list[float], std: list[float], bgr_to_rgb: bool) -> InputAdapter:
        own = self.teacher.data_preprocessor
        other = MODELS.build(
            dict(
                type=f'mmdet.{type(own).__name__}' if type(own).__module__.startswith('mmdet') else type(own),
                mean=mean,
                std=std,
                bgr_to_rgb=bgr_to_rgb,
                pad_value=getattr(own, 'pad_value', 0),
            )
        )
        return InputAdapter(self.student, SimpleNamespace(data_preprocessor=other))

    def _is_configured(self, adapter: InputAdapter, used: InputAdapter) -> bool:
        return adapter.flip == used.flip and bool(
            torch.allclose(adapter.scale, used.scale, rtol=1e-2)
            and torch.allclose(adapter.shift, used.shift, atol=1e-1)
        )

    def _losses(self, forms: list, end: float) -> Tensor:
        """The loss of each image in each form: (forms, images).

        All forms run on one image before the next, so that a timeout leaves them with the same images.
        """
        losses: list[Tensor] = []
        for batch in self.batches:
            if len(losses) >= LEAST and time.perf_counter() > end:
                break
            losses.append(torch.stack([_loss(model, adapter, batch) for model, adapter in forms]))
        self.batches = self.batches[: len(losses)]
        return torch.stack(losses, 1).double().cpu()

    def findings(self) -> Iterator[Finding]:
        """Findings on the teacher and its inputs."""
        if not self.batches:
            masks = ', with masks' if needs_masks(self.teacher) else ''
            text = f'No image looked at holds a class that the teacher knows{masks}, so its own loss says nothing.'
            yield warning(text)
            return
        own, floor = float(self.configured.mean()), float(self.untrained.mean())
        if not own < FLOOR * floor:  # true for nan too
            yield fatal(
                f"The teacher's own loss on {len(self.configured)} images is {own:.3f}, untrained it would be "
                f"{floor:.3f}: it does not know these images. Look at teacher_ckpt, at the teacher's classes and at "
                'its data_preprocessor.'
            )
        if not self.others:
            return
        name = min(self.others, key=lambda key: float(self.others[key].mean()))
        best = self.others[name]
        wins = int((best < self.configured).sum())
        gain = float(best.mean()) / own
        if gain < SUSPECT and 4 * wins >= 3 * len(best):
            yield Finding(
                gain < WRONG,
                f'The teacher does better with other inputs than its config gives it: loss {float(best.mean()):.3f} '
                f'with "{name}" against {own:.3f}. Look at mean, std and bgr_to_rgb of the teacher\'s '
                'data_preprocessor.',
            )

    def rows(self) -> Iterator[tuple[str, float]]:
        """``(name, mean loss)`` for a table."""
        if not self.batches:
            return
        yield 'as configured', float(self.configured.mean())
        yield 'the same network untrained', float(self.untrained.mean())
        for name, losses in self.others.items():
            yield name, float(losses.mean())


@torch.no_grad()
def _loss(model: Any, adapter: InputAdapter, batch: dict) -> Tensor:
    """The total loss of a detector on one image, in eval mode."""
    head = dense_module(model)
    heads = [] if head is None else [head]
    inputs = adapter(batch['inputs'], batch['data_samples'])
    # rank 0 runs this alone, but losses are averaged over processes
    devices = [inputs.device] if inputs.is_cuda else []
    with alone(), late(), own_loss_mode(model, *heads), torch.random.fork_rng(devices):
        torch.manual_seed(0)  # the same sampled regions every time
        parts = model(inputs, batch['data_samples'], mode='loss')
    return model.parse_losses(parts)[0]


def _untrained(teacher: nn.Module) -> nn.Module:
    """The same network with new weights.

    Its BN uses the statistics of the images, because the running ones belong to the old weights.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        untrained = copy.deepcopy(teacher)
        initialise(untrained)
    for module in untrained.eval().modules():
        if isinstance(module, _BatchNorm):
            module.eps = module.eps or 1e-5  # torch takes 0 from frozen ones alone, as in NAS-FCOS
            module.register_forward_pre_hook(_use_statistics_of_images)
    return untrained


def _use_statistics_of_images(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    # a map of one pixel of one image (the last level of SSD) has no variance: torch would raise
    module.training = inputs[0].numel() > inputs[0].shape[1]
