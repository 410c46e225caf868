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

from kd_ext.losses.labelled import EPS, directions
from kd_ext.losses.precision import full_precision


@full_precision
def classifier_rows(class_means: Tensor, learnt: Tensor, center: bool = True) -> tuple[Tensor, Tensor]:
    """Unit rows (C, D) that score the classes, and g (1, D).

    Args:
        class_means: Raw teacher means (C, D), zero where there is none.
        learnt: Rows (C, D) for the classes without a mean.
        center: Subtract g from the means.
    """
    norms = torch.linalg.vector_norm(class_means, dim=1, keepdim=True)
    known = norms > EPS
    centre = class_means.sum(0, keepdim=True) / known.sum().clamp(min=1)
    centre = centre * float(center)
    # a mean at the centre leaves rounding errors, which have no meaningful direction
    rows = directions(class_means - centre, EPS * norms.clamp(min=1))
    known = known & (rows != 0).any(1, keepdim=True)
    return torch.where(known, rows, directions(learnt)), centre


@full_precision
def scaled_cosines(embeddings: Tensor, rows: Tensor, scale: float | Tensor) -> Tensor:
    """Scaled cosines of centred embeddings (..., D) to unit rows (C, D)."""
    return scale * F.linear(directions(embeddings), rows)


@full_precision
def prototype_logits(
    embeddings: Tensor, class_means: Tensor, learnt: Tensor, scale: float | Tensor = 1.0, center: bool = True
) -> Tensor:
    """Scaled cosines to the class means; see the module's formula.

    Args:
        embeddings: Student embeddings (..., D).
        class_means: Raw teacher means (C, D), zero where there is none.
        learnt: Rows (C, D) for the classes without a mean.
        scale: gamma.
        center: Subtract g from means and embeddings.

    Returns:
        Logits (..., C) in [-scale, scale], in float32 or better; 0 for an embedding at g.

    Example:
        >>> import torch
        >>> means = torch.eye(3)
        >>> prototype_logits(means, means, means).argmax(1)
        tensor([0, 1, 2])
    """
    rows, centre = classifier_rows(class_means, learnt, center)
    return scaled_cosines(embeddings - centre, rows, scale)
