"""Sums over labelled embeddings, for class means and the measures of neural collapse.

Shapes: N regions, D embedding width, R rows (classes; the background last if it counts). Row k has label k.
"""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from kd_ext.errors import value_error
from kd_ext.losses.checks import check_count
from kd_ext.losses.labelled import check_labelled, class_sums


class Sums:
    """Counts and sums of embeddings by class, in float64.

    They add up over batches, processes and parts of a data set.

    Args:
        rows: R. Labels outside 0 .. R - 1 are ignored: with R = K the background is, with K + 1 it counts.
        width: D.

    Attributes:
        counts: Regions of each class (R,).
        sums: Sum of the embeddings of each class (R, D).
    """

    def __init__(self, rows: int, width: int) -> None:
        check_count('rows', rows), check_count('width', width)
        self.counts = torch.zeros(rows, dtype=torch.double)
        self.sums = torch.zeros(rows, width, dtype=torch.double)

    @torch.no_grad()
    def add(self, embeddings: Tensor, labels: Tensor) -> Sums:
        """Adds embeddings (N, D) with labels (N,).

        Raises:
            ValueError: Shapes do not fit, or an embedding is inf or NaN; the sums are unchanged then.
        """
        check_labelled(embeddings, labels, self.sums)
        embeddings, labels = embeddings.cpu().double(), labels.cpu()
        counted = (labels >= 0) & (labels < len(self.counts))
        embeddings, labels = embeddings[counted], labels[counted]
        wrong = (~embeddings.isfinite().all(1)).sum()
        if wrong:
            found = f'inf or NaN in {wrong} of {len(embeddings)} regions'
            raise value_error('embeddings', 'finite', found, 'Check the checkpoint; fp16 may have overflowed.')
        self._add(embeddings, labels)
        return self

    def _add(self, embeddings: Tensor, labels: Tensor) -> None:
        sums, counts = class_sums(embeddings, labels, len(self.counts))
        self.sums += sums
        self.counts += counts

    def merge(self, other: Sums) -> Sums:
        """Adds ``other``, which has the same shape."""
        if self.sums.shape != other.sums.shape:
            raise value_error('moments', f'of shape {tuple(self.sums.shape)}', tuple(other.sums.shape))
        for mine, theirs in zip(self._state(), other._state()):
            mine += theirs
        return self

    def all_reduce(self) -> Sums:
        """Adds up over all processes; each has to call it, once, at the end."""
        for tensor in self._state():
            all_reduce(tensor)
        return self

    def _state(self) -> tuple[Tensor, ...]:
        return self.counts, self.sums

    @property
    def means(self) -> Tensor:
        """Class means (R, D), zero for a class without regions."""
        return self.sums / self.counts.clamp(min=1)[:, None]


class Moments(Sums):
    """Sums, and the sum of h h^T over all regions, ``squares`` (D, D): in total D * (R + D) numbers."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows, width)
        self.squares = torch.zeros(width, width, dtype=torch.double)

    def _add(self, embeddings: Tensor, labels: Tensor) -> None:
        super()._add(embeddings, labels)
        self.squares += embeddings.T @ embeddings

    def _state(self) -> tuple[Tensor, ...]:
        return self.counts, self.sums, self.squares

    @property
    def within(self) -> Tensor:
        """Covariance S_W within classes (D, D), over the regions of all classes."""
        scatter = self.squares - self.sums.T @ self.means
        return scatter / self.counts.sum().clamp(min=1)
