"""Class means of a teacher, as a running mean of what training shows."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_ext.class_means.stored import StoredClassMeans
from kd_ext.losses.labelled import batch_means


class OnlineClassMeans(StoredClassMeans):
    """Means of all teacher embeddings seen so far, equal on all processes.

    A plain average over everything seen, the current batch included, so it is of use from the first iteration.
    Warm-up: a class takes part from the first region seen of it; until then its row is zero, which all losses
    leave out.

    Args:
        rows: R.
        width: D.
    """

    counts: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(torch.zeros(rows, width))
        self.register_buffer('counts', torch.zeros(rows, dtype=torch.long))

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Takes in the regions of all processes; each has to call it.

        Args:
            embeddings: The teacher's (N, D).
            labels: (N,); a label that has no row is left out.
        """
        means, counts = batch_means(embeddings, labels, len(self.means))
        self.counts += counts.long()
        share = counts / self.counts.clamp(min=1)
        self.means += share[:, None] * (means - self.means)
