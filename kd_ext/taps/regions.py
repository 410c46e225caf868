"""What a detector's last classification layer sees, region by region."""

from typing import Any, NamedTuple

from torch import Tensor


class Regions(NamedTuple):
    """N regions of one batch, in one order in all fields.

    A region is a sampled proposal (RoI heads), a positive anchor or point (dense heads) or a matched query (query
    heads).
    """

    embeddings: Tensor  # (N, D), what feeds the classification layer
    logits: Tensor  # (N, K or K + 1), what it puts out
    labels: Tensor  # (N,), K for background
    places: Any = None  # where another model can read the same regions
