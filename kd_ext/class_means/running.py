"""Running class means of a teacher, updated in training."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_ext.class_means.stored import StoredClassMeans
from kd_ext.losses.labelled import batch_means


class OnlineClassMeans(StoredClassMeans):
    """Means (R, D) of all teacher embeddings seen so far, the current batch included; equal on all processes.

    A class counts from its first region on. Until then its row is zero, which all losses ignore.
    """

    counts: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(torch.zeros(rows, width))
        self.register_buffer('counts', torch.zeros(rows, dtype=torch.long))

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Adds embeddings (N, D) of all processes; each has to call it. Labels (N,) without a row are ignored."""
        means, counts = batch_means(embeddings, labels, len(self.means))
        self.counts += counts.long()
        share = counts / self.counts.clamp(min=1)
        self.means += share[:, None] * (means - self.means)
