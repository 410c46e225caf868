r"""Self-duality (NC3): the teacher's class means as classifier rows.

Shapes: D_in input width, D width of the teacher's embeddings, A anchors per location, C logits per anchor (K, or K
+ 1 with the background last).

.. math::
    logit_k = \gamma \langle z, \tilde m_k\rangle + b_k,\quad
    z = \frac{s - g}{\lVert s - g\rVert},\quad
    \tilde m_k = \frac{mean_k - g}{\lVert mean_k - g\rVert},\quad
    g = \text{mean of } mean_k

g averages the classes that have a mean, as in NC1. A class without a mean (never seen by the teacher, or exactly
at g) gets a learnt row instead, and so does a background without a mean.

Source: Neural Collapse Inspired Knowledge Distillation, AAAI 2025, arXiv 2412.11788. No code was released; this is
our reading.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_ext.losses.labelled import class_directions, directions, known_classes
from kd_ext.losses.precision import full_precision


@full_precision
def classifier_rows(class_means: Tensor, learnt: Tensor, center: bool = True) -> tuple[Tensor, Tensor]:
    """Unit rows (C, D) that score the classes, and g (1, D), or 0 without ``center``.

    Args:
        class_means: Raw teacher means (C, D), zero where there is none.
        learnt: Rows (C, D) for the classes without a mean.
        center: Subtract g from the means.

    Example:
        >>> import torch
        >>> means = torch.eye(3)
        >>> rows, centre = classifier_rows(means, means)
        >>> scaled_cosines(means - centre, rows, 1.0).argmax(1)
        tensor([0, 1, 2])
    """
    rows, centre = class_directions(class_means, known_classes(class_means), center)
    return torch.where((rows != 0).any(1, keepdim=True), rows, directions(learnt)), centre


@full_precision
def scaled_cosines(embeddings: Tensor, rows: Tensor, scale: float | Tensor) -> Tensor:
    """Scaled cosines of centred embeddings (..., D) to unit rows (C, D)."""
    return scale * F.linear(directions(embeddings), rows)
