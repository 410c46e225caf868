r"""Measures of neural collapse: NC1, NC2, NC3.

Shapes: N regions, D embedding width, R rows (classes; the background last if it counts), K of them with enough
regions. Row k has label k.

.. math::
    NC1 = \frac{1}{K} tr(S_W S_B^+),\quad
    S_W = \frac{1}{N} \sum_i (h_i - m_{y_i})(h_i - m_{y_i})^T,\quad
    S_B = \frac{1}{K} \sum_k (m_k - g)(m_k - g)^T

    NC2 = \text{mean over } k \ne l \text{ of }
        |\cos(m_k - g, m_l - g) + \frac{1}{K-1}|

    NC3 = \text{mean over } k \text{ of } 1 - \cos(m_k - g, w_k - \bar w)

m_k is the mean of class k, g the mean of the m_k, w_k the classifier's row and w-bar the mean of the w_k. All
three are 0 in a simplex ETF whose classifier rows are its class means. NC1 is a ratio of variances.

Source: Papyan, Han, Donoho, Prevalence of neural collapse during the terminal phase of deep learning training,
PNAS 2020, arXiv 2008.08186.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_ext.class_means.moments import Moments
from kd_ext.errors import value_error
from kd_ext.losses.checks import check_count
from kd_ext.losses.labelled import directions

# singular values below this share of the largest are rounding errors of fp32 means
RANK_TOLERANCE = 1e-6


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0, keepdim=True)


def class_cosines(means: Tensor) -> Tensor:
    """Cosines between centred class means (K, K)."""
    rows = directions(_centred(means))
    return rows @ rows.mT


def nc1(means: Tensor, within: Tensor) -> float:
    """Within-class variability relative to between-class variability, >= 0.

    Args:
        means: Class means (K, D), K > 1.
        within: S_W (D, D).
    """
    # S_B = M^T M / K, so S_B^+ = K V diag(1 / s^2) V^T with M = U s V^T
    _, spread, basis = torch.linalg.svd(_centred(means), full_matrices=False)
    kept = spread > RANK_TOLERANCE * spread.max().clamp(min=1e-300)
    basis, spread = basis[kept], spread[kept]
    variances = ((basis @ within) * basis).sum(1)
    return float((variances / spread.square()).sum().clamp(min=0))


def nc2(means: Tensor) -> tuple[float, float]:
    """How far the angles between K > 1 class means (K, D) are from those of an ETF.

    Returns:
        Mean of abs(cosine + 1 / (K - 1)) over pairs of classes, and the standard deviation of the cosines.
    """
    count = len(means)
    upper = torch.ones(count, count).triu(1).bool()
    cosines = class_cosines(means)[upper]
    deviation = (cosines + 1 / (count - 1)).abs().mean()
    return float(deviation), float(cosines.std(correction=0))


def nc3(means: Tensor, rows: Tensor) -> float:
    """Mean of 1 - cosine between centred class means (K, D) and centred classifier rows (K, D)."""
    cosines = (directions(_centred(means)) * directions(_centred(rows.to(means)))).sum(1)
    return float((1 - cosines).mean())


@dataclass
class Collapse:
    """The measures of one model.

    Attributes:
        classes: Names of the K classes that were counted.
        left_out: Regions of each class with too few, by name.
        counts: Regions of each counted class (K,).
        cosines: Between centred class means (K, K).
        norms: Of the raw class means (K,).
        nc1, nc2, nc3: See the module's formulas; nc3 is None without a classifier.
        nc2_std: Standard deviation of the cosines.
        norm_spread: Standard deviation over mean of the centred means' norms; 0 in an ETF.
    """

    classes: list[str]
    left_out: dict[str, int]
    counts: Tensor
    cosines: Tensor
    norms: Tensor
    nc1: float
    nc2: float
    nc2_std: float
    norm_spread: float
    nc3: float | None = None

    def numbers(self) -> dict:
        """The scalars, ready for JSON."""
        scalars = {key: getattr(self, key) for key in ('nc1', 'nc2', 'nc2_std', 'nc3', 'norm_spread')}
        return dict(scalars, classes=len(self.classes), regions=int(self.counts.sum()), left_out=self.left_out)


def measure(
    moments: Moments, classifier: Tensor | None = None, names: Sequence[str] | None = None, min_regions: int = 1
) -> Collapse:
    """Computes all measures from the moments of a model's embeddings.

    Args:
        moments: Of all processes.
        classifier: Rows (R or more, D) of the last layer; those beyond R, such as the background's, are ignored.
        names: Of the R rows, or of K classes where the last row is the background.
        min_regions: Classes with fewer regions are left out, except from S_W, which pools all regions.

    Raises:
        ValueError: Fewer than two classes are left, or the classifier or the names do not fit.
    """
    rows, width = moments.sums.shape
    names = _names(names, rows)
    known = moments.counts >= check_count('min_regions', min_regions)
    if known.sum() < 2:
        remedy = 'The measures compare classes: use more images, or a smaller min_regions.'
        raise value_error('the number of classes with regions', 'at least 2', int(known.sum()), remedy)
    means = moments.means[known]
    norms = torch.linalg.vector_norm(_centred(means), dim=1)
    deviation, spread = nc2(means)
    return Collapse(
        classes=[name for name, kept in zip(names, known) if kept],
        left_out={name: int(count) for name, kept, count in zip(names, known, moments.counts) if not kept},
        counts=moments.counts[known].long(),
        cosines=class_cosines(means),
        norms=torch.linalg.vector_norm(means, dim=1),
        nc1=nc1(means, moments.within),
        nc2=deviation,
        nc2_std=spread,
        norm_spread=float(norms.std(correction=0) / norms.mean()),
        nc3=_duality(means, classifier, known, width),
    )


def _names(names: Sequence[str] | None, rows: int) -> list[str]:
    names = [str(name) for name in (range(rows) if names is None else names)]
    if len(names) == rows - 1:
        names.append('background')
    if len(names) != rows:
        raise value_error('names', f'{rows} of them', f'{len(names)}')
    return names


def _duality(means: Tensor, classifier: Tensor | None, known: Tensor, width: int) -> float | None:
    if classifier is None:
        return None
    if classifier.dim() != 2 or classifier.shape[1] != width or len(classifier) < len(known):
        rule, found = f'at least {len(known)} rows of width {width}', f'shape {tuple(classifier.shape)}'
        raise value_error('classifier', rule, found, 'A classifier behind a projection has another width.')
    return nc3(means, classifier.detach().cpu()[: len(known)][known])
