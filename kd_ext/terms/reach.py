"""Checks whether a term can move the student, by the autograd graph of its value."""

from __future__ import annotations

from typing import Iterable

import torch
from torch import Tensor, nn


def reaches_student(values: Iterable[Tensor], own: Iterable[nn.Parameter]) -> bool:
    """Whether the gradient of any of these values reaches a leaf other than ``own``.

    The graph is walked, not run, because ``torch.autograd.grad`` raises on reentrant checkpoints
    (``with_cp=True``). The walk does not see parameters inside such a checkpoint. But its output has a gradient
    only if its input has one, so the walk finds what feeds it. ``own`` are parameters of connectors and losses,
    which may learn although the student does not.
    """
    known = {id(parameter) for parameter in own}
    nodes = [value.grad_fn for value in values if value.grad_fn is not None]
    seen = {*nodes}
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, 'variable', None)  # of torch's AccumulateGrad
        if isinstance(leaf, Tensor) and id(leaf) not in known:
            return True
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return False


def is_compiling() -> bool:
    """Whether ``torch.compile`` traces this call, so that there is no graph yet; False on old torch."""
    ask = getattr(getattr(torch, 'compiler', None), 'is_compiling', None)
    return ask is not None and ask()
