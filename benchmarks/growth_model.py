r"""How the cost of a loss grows with what it is given.

A line is one loss and one quantity: a run (forward and backward) at several values of it, all else at the sizes of
a usual training. The exponent e of

.. math:: cost \approx a \cdot value^e

is fitted by least squares on logarithms, over all values and over the upper half, and compared with the power that
the loss' own formula has. What is added once a call (a kernel's start, class means that are read whole) makes the
fitted one smaller; a larger one means work that the formula does not ask for.
"""

from typing import Callable, Dict, List, NamedTuple, Optional

import numpy as np
import torch

from kd_ext.losses import LipschitzLoss, LogitCKALoss, LogitKLLoss, NCKDLoss, NDLoss, RCKALoss, ReviewKDLoss

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


LINES = [
    Line('RCKA', 'pixels', 2, 'P x P products up to 5/3 B p^2 patches; from there on 1'),
    Line('RCKA', 'batch', 1, 'longer rows, the same P'),
    Line('ReviewKD', 'pixels', 1, 'convolutions'),
    Line('ReviewKD', 'batch', 1, 'convolutions'),
    Line('Lipschitz', 'pixels', 1, 'products with a vector'),
    Line('Lipschitz', 'batch', 1, 'one matrix an image'),
    Line('ND', 'regions', 1, 'one product a region'),
    Line('ND', 'classes', 1, 'a length for each class mean'),
    Line('NCKD', 'regions', 1, 'regions x classes products'),
    Line('NCKD', 'classes', 2, 'angles of all pairs of classes'),
    Line('KL', 'regions', 1, 'a softmax a region'),
    Line('KL', 'classes', 1, 'a softmax over classes'),
    Line('LogitCKA', 'regions', 1, 'K x K products, as long as regions'),
    Line('LogitCKA', 'classes', 2, 'K x K products of K classes'),
]


def make_run(line: Line, value, device: str = 'cpu', **usual) -> Callable[[], None]:
    """A forward and backward of ``line.loss`` at one value.

    ``usual`` replaces fields of :class:`Usual`.
    """
    torch.manual_seed(0)
    given = Usual(**{**usual, line.along: value})
    loss, student, rest = MAKERS[line.loss](given, device)
    leaves = [leaf.requires_grad_() for leaf in student]
    loss = loss.to(device).train()
    single = len(leaves) == 1

    def run():
        value = loss(leaves[0] if single else tuple(leaves), *rest)
        total = sum(value.values()) if isinstance(value, dict) else value
        total.backward()
        for leaf in (*leaves, *loss.parameters()):
            leaf.grad = None

    return run


def _maps(given, strides, widths, device):
    height, width = given.pixels
    return [
        torch.rand(given.batch, channels, -(-height // stride), -(-width // stride), device=device)
        for stride, channels in zip(strides, widths)
    ]


def _neck(given, device):
    return _maps(given, (4, 8, 16, 32), [given.width] * 4, device)


def _stages(given, device):
    widths = [given.width * 2**k for k in range(4)]
    return _maps(given, (4, 8, 16, 32), widths, device)


def _rcka(given, device):
    return (RCKALoss(center=False), _neck(given, device), [tuple(_neck(given, device))])


def _review(given, device):
    loss = ReviewKDLoss(given.width, given.width, 4, given.width)
    return loss, _neck(given, device), [tuple(_neck(given, device))]


def _lipschitz(given, device):
    return (LipschitzLoss(relative=True), _stages(given, device), [tuple(_stages(given, device))])


def _embeddings(given, device):
    return torch.rand(given.regions, given.embedding, device=device)


def _classes(given, device):
    """Labels and class means."""
    labels = torch.randint(given.classes, (given.regions,), device=device)
    return [labels, torch.rand(given.classes, given.embedding, device=device)]


def _nd(given, device):
    return (
        NDLoss(num_classes=given.classes),
        [_embeddings(given, device)],
        [_embeddings(given, device), *_classes(given, device)],
    )


def _nckd(given, device):
    loss = NCKDLoss(num_classes=given.classes, width=given.embedding)
    return loss, [_embeddings(given, device)], _classes(given, device)


def _of_logits(loss):
    def make(given, device):
        student, teacher = torch.randn(2, given.regions, given.classes, device=device)
        return loss(), [student], [teacher]

    return make


MAKERS = {
    'RCKA': _rcka,
    'ReviewKD': _review,
    'Lipschitz': _lipschitz,
    'ND': _nd,
    'NCKD': _nckd,
    'KL': _of_logits(LogitKLLoss),
    'LogitCKA': _of_logits(LogitCKALoss),
}


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
