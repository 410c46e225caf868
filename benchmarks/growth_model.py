"""How the cost of a loss grows with what it is given.

A line is one loss and one quantity: a run (forward and backward) at several values of it, all else at the sizes of
a usual training. The exponent e of

.. math:: cost \approx a \\cdot value^e

is fitted by least squares on logarithms, over all values and over the upper half, and compared with the power that
the loss' own formula has. What is added once a call (a kernel's start, class means that are read whole) makes the
fitted one smaller; a larger one means work that the formula does not ask for.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

import kd_ext  # noqa: F401  # mmrazor's losses need it
from kd_ext.losses.precision import upcast
from kd_ext.recipes import COMBINATIONS, METHODS, distill_entries
from kd_ext.terms.entry import build_loss, set_up, split_entry

SIZES = ((224, 384), (320, 544), (448, 768), (640, 1088), (896, 1536), (1280, 2176))
BATCHES = 1, 2, 4, 8, 16
REGIONS = 128, 256, 512, 1024, 2048, 4096
CLASSES = 20, 80, 320, 1280
VALUES = dict(pixels=SIZES, batch=BATCHES, regions=REGIONS, classes=CLASSES)
TOLERANCE = 0.3  # what leaving the caches adds to an exponent
LEAST_MIB = 8.0  # below, a peak is made of pages of other things


class Usual(NamedTuple):
    """What a loss is given beside the quantity that grows."""

    pixels: tuple = (448, 768)
    batch: int = 1
    regions: int = 512
    classes: int = 80
    width: int = 64  # channels of a level
    embedding: int = 1024


class Line(NamedTuple):
    """One loss along one quantity, with the power its formula has."""

    loss: str
    along: str
    power: float
    why: str


# losses without a ready entry, and where they read
EXTRA = {
    'logit_cka': dict(type='kd_ext.LogitCKALoss', at='logits'),
    'feature_cka': dict(type='kd_ext.FeatureCKALoss', at='neck'),
    'location_kl': dict(type='kd_ext.LocationKLLoss', at='neck'),
}
ENTRIES = {**{name: distill_entries([name])[name] for name in METHODS if name not in COMBINATIONS}, **EXTRA}
ALONG = dict(
    neck=('pixels', 'batch'),
    backbone=('pixels', 'batch'),
    embedding=('regions', 'classes'),
    logits=('regions', 'classes'),
)
# powers other than 1, or with a reason worth saying
POWERS = {
    ('rcka', 'pixels'): (2, 'P x P products up to 5/3 B p^2 patches; from there on 1'),
    ('rcka', 'batch'): (1, 'longer rows, the same P'),
    ('feature_cka', 'batch'): (2, 'B x B products'),
    ('lipschitz', 'pixels'): (1, 'products with a vector'),
    ('lipschitz', 'batch'): (1, 'one matrix an image'),
    ('nd', 'classes'): (1, 'a length for each class mean'),
    ('nckd', 'regions'): (1, 'regions x classes products'),
    ('nckd', 'classes'): (2, 'angles of all pairs of classes'),
    ('logit_cka', 'regions'): (1, 'K x K products, as long as regions'),
    ('logit_cka', 'classes'): (2, 'K x K products of K classes'),
}
LINES = [
    Line(name, along, *POWERS.get((name, along), (1, f'each of the {along} once')))
    for name, entry in ENTRIES.items()
    for along in ALONG[entry['at']]
]


def prepare(
    name: str, given: Usual, device: str = 'cpu', dtype: torch.dtype = torch.float32
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Callable[[], Tensor]]:
    """Student leaves, teacher tensors and the forward pass of a loss on both.

    All numbers are drawn on the CPU: a seed gives the same ones on every device, rounded to ``dtype``.
    """
    loss_cfg, settings = split_entry(name, ENTRIES[name])
    loss, traits = build_loss(name, loss_cfg)
    student, teacher = (tuple(one.to(device, dtype) for one in _features(settings['at'], given)) for _ in range(2))
    labels = torch.randint(given.classes, (given.regions,)).to(device)
    means = torch.rand(given.classes, given.embedding).to(device)
    widths = [tensor.shape[1] for tensor in student]
    if settings['at'] in ('embedding', 'logits'):
        facts = dict(num_classes=given.classes, width=widths[0], use_sigmoid=False)
    else:
        facts = dict(num_levels=len(widths), student_widths=widths, teacher_widths=widths)
    set_up(name, loss, traits, **facts)
    loss = loss.to(device, torch.float64 if dtype == torch.float64 else torch.float32).train()
    for leaf in student:
        leaf.requires_grad_()

    def call(*pair) -> Tensor:
        features, named = traits.arguments(*upcast(pair), labels=labels, class_means=means)  # as a term does
        value = loss(*features, **named)
        return sum(value.values()) if isinstance(value, dict) else value

    def forward() -> Tensor:
        if traits.relates_levels:
            return call(student, teacher)
        return sum(call(*pair) for pair in zip(student, teacher))

    return student, teacher, forward


def make_run(line: Line, value, device: str = 'cpu', **usual) -> Callable[[], None]:
    """A forward and backward of ``line.loss`` at one value.

    ``usual`` replaces fields of :class:`Usual`.
    """
    torch.manual_seed(0)
    leaves, _, forward = prepare(line.loss, Usual(**{**usual, line.along: value}), device)

    def run() -> None:
        forward().backward()
        for leaf in leaves:
            leaf.grad = None

    return run


def _features(at: str, given: Usual) -> tuple[Tensor, ...]:
    """One side's: four levels of a neck, four stages that double their width, embeddings or logits."""
    if at == 'embedding':
        return (torch.rand(given.regions, given.embedding),)
    if at == 'logits':
        return (torch.randn(given.regions, given.classes),)
    height, width = given.pixels
    return tuple(
        torch.rand(
            given.batch, given.width * (2**level if at == 'backbone' else 1), -(-height // stride), -(-width // stride)
        )
        for level, stride in enumerate((4, 8, 16, 32))
    )


def amount(value) -> int:
    """A value as a number: an image's pixels, or itself."""
    return value[0] * value[1] if isinstance(value, tuple) else value


def fit(amounts: List[float], costs: List[float]) -> Optional[float]:
    """The exponent of a power law, None of fewer than two points."""
    if len(amounts) < 2:
        return None
    return float(np.polyfit(np.log(amounts), np.log(costs), 1)[0])


def judge(line: Line, amounts: List[float], seconds: List[float], mib: List[Optional[float]]) -> Dict:
    """Fitted exponents, and whether one exceeds the formula's power."""
    half = len(amounts) // 2
    peaks = [(amount, peak) for amount, peak in zip(amounts, mib) if peak is not None and peak >= LEAST_MIB]
    found = dict(
        time=fit(amounts, seconds),
        time_upper_half=fit(amounts[half:], seconds[half:]),
        memory=fit(*zip(*peaks)) if len(peaks) > 2 else None,
    )
    return dict(
        power=line.power,
        why=line.why,
        **found,
        faster=any(value is not None and value > line.power + TOLERANCE for value in found.values()),
    )
