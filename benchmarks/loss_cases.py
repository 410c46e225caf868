"""What ``benchmarks/losses.py`` compares, one function per method.

A method with rivals is a function under ``@case``. It gets the device and a divisor of the sizes, and returns a
:class:`Case` of closures, each a forward and a backward on the same tensors. Every other entry of
``configs/_base_/distill`` is compared with mse alone.
"""

from functools import partial
from typing import Callable, Dict, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.growth_model import ENTRIES, Usual, prepare
from benchmarks.loss_rivals import formed_lipschitz_loss, loop_nd_loss, loop_rcka_loss, svd_lipschitz_loss
from kd_ext.losses.lipschitz_loss import lipschitz_loss
from kd_ext.losses.nckd_loss import nc1_loss
from kd_ext.losses.nd_loss import nd_loss
from kd_ext.losses.rcka_loss import RCKALoss

# FPN levels 0..3 and the stages of ResNet-50 at 800 x 1333
LEVELS = (100, 168), (50, 84), (25, 42), (13, 21)
STAGES = (256, 200, 336), (512, 100, 168), (1024, 50, 84), (2048, 25, 42)


class Case(NamedTuple):
    """Candidates on the same leaves; ``slow`` ones get so many repeats."""

    title: str
    leaves: Tuple[Tensor, ...]
    candidates: Dict[str, Callable[[], None]]
    slow: Dict[str, int]

    def clear(self):
        """Drops the gradients that the last run left."""
        for leaf in self.leaves:
            leaf.grad = None


CASES: Dict[str, Callable[..., Case]] = {}


def case(function):
    """Adds a case under its function's name."""
    CASES[function.__name__] = function
    return function


def _step(leaves, loss):
    """Forward and backward, with the gradients dropped before."""

    def run():
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return run


def _maps(shapes, device, make=torch.randn):
    """Student leaves and teacher tensors."""
    student, teacher = ([make(*shape, device=device) for shape in shapes] for _ in range(2))
    return tuple(leaf.requires_grad_() for leaf in student), tuple(teacher)


def mse(student, teacher) -> Tensor:
    """F.mse_loss summed over levels: the unit of every ratio."""
    return sum(F.mse_loss(*pair) for pair in zip(student, teacher))


@case
def rcka(device: str, shrink: int) -> Case:
    shapes = [(2, max(2, 256 // shrink), *size) for size in LEVELS]
    student, teacher = _maps(shapes, device)

    def ours(**kwargs):
        loss = RCKALoss(**kwargs)
        return _step(student, lambda: loss(student, teacher))

    def loop(inter_weight):
        return _step(student, lambda: sum(loop_rcka_loss(*pair, 16, inter_weight) for pair in zip(student, teacher)))

    return Case(
        f'RCKA: B 2, C {shapes[0][1]}, FPN levels of 800 x 1333',
        student,
        {
            'mse': _step(student, lambda: mse(student, teacher)),
            'intra': ours(center=False),
            'intra + inter': ours(center=False, inter_weight=1.0),
            'intra, centred': ours(center=True),
            'intra + inter, centred': ours(center=True, inter_weight=1.0),
            'loop over channels, intra': loop(0.0),
            'loop over channels, intra + inter': loop(1.0),
        },
        {'loop over channels, intra': 3, 'loop over channels, intra + inter': 1},
    )


@case
def lipschitz(device: str, shrink: int) -> Case:
    return _lipschitz(
        device, shrink, 'after a ReLU', lambda *size, device: torch.randn(*size, device=device).relu_(), 1
    )


@case
def lipschitz_hard(device: str, shrink: int) -> Case:
    # no leading direction, so that no step of the iteration is saved
    return _lipschitz(device, shrink, 'Gaussian', torch.randn, 0)


def _lipschitz(device, shrink, kind, make, svd_runs):
    shapes = [(2, max(2, width // shrink), *size) for width, *size in STAGES]
    student, teacher = _maps(shapes, device, make)

    def run(loss):
        return _step(student, lambda: loss(student, teacher))

    candidates = {
        'mse': run(mse),
        'matrix-free': run(lipschitz_loss),
        'matrices formed, 10 steps': run(formed_lipschitz_loss),
    }
    slow = {}
    if svd_runs:
        candidates['matrices formed, SVD'] = run(svd_lipschitz_loss)
        slow['matrices formed, SVD'] = svd_runs
    return Case(f'Lipschitz: B 2, ResNet-50 stages of 800 x 1333, {kind}', student, candidates, slow)


@case
def nd(device: str, shrink: int) -> Case:
    count = max(8, 1024 // shrink)
    student, teacher = _maps([(count, 1024)], device, torch.rand)
    labels = torch.randint(81, (count,), device=device)
    means = torch.rand(81, 1024, device=device)
    args = student[0], teacher[0], labels, means
    return Case(
        f'ND and NC1: {count} regions of width 1024, 80 classes',
        student,
        {
            'mse': _step(student, lambda: mse(student, teacher)),
            'ND': _step(student, lambda: nd_loss(*args)),
            'NC1': _step(student, lambda: nc1_loss(student[0], *args[2:])),
            'ND, loop over regions': _step(student, lambda: loop_nd_loss(*args)),
        },
        {'ND, loop over regions': 3},
    )


def _ready(name: str, device: str, shrink: int) -> Case:
    """A ready entry beside mse on the same tensors."""
    width, count = max(2, 256 // shrink), max(8, 1024 // shrink)
    given = Usual((800, 1333), 2, count, 80, width) if shrink == 1 else Usual((160, 224), 2, count, 8, width, 16)
    leaves, teacher, forward = prepare(name, given, device)
    title = f'{name}: at {ENTRIES[name]["at"]}, {", ".join(str(tuple(leaf.shape)) for leaf in leaves)}'
    return Case(title, leaves, {'mse': _step(leaves, lambda: mse(leaves, teacher)), name: _step(leaves, forward)}, {})


for _name in ENTRIES:
    if _name not in CASES:
        CASES[_name] = partial(_ready, _name)
