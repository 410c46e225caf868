"""Measures a model's neural collapse on images of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn

from kd_ext.analysis.neural_collapse.measures import Collapse, measure
from kd_ext.class_means.job import add_regions
from kd_ext.class_means.moments import Moments
from kd_ext.data.labelled import check_classes
from kd_ext.data.progress import ImageProgress
from kd_ext.data.regions import stream_regions, undisturbed
from kd_ext.errors import value_error
from kd_ext.taps import find_head


class CollapseJob:
    """Measures NC1 to NC3 over images; each process takes its share.

    Args:
        data: The :class:`LabelledData`, of which the images at ``indices`` are used.
        stage, levels: Of the head, see :func:`find_head`.
        background: Whether the background counts as a class, if the head has regions of it.
        workers: Data workers of each process.
        min_regions: Classes with fewer regions are left out.
    """

    def __init__(
        self,
        data: Any,
        indices: Sequence[int],
        stage: int | None = None,
        levels: Sequence | None = None,
        background: bool = False,
        workers: int = 0,
        min_regions: int = 1,
    ) -> None:
        self.data, self.indices = data, list(indices)
        self.stage, self.levels = stage, levels
        self.background = background
        self.workers, self.min_regions = workers, min_regions

    def head(self, model: nn.Module, role: str) -> Any:
        """Finds the model's head and checks its classes.

        Raises:
            ValueError: The head is unknown, its classes are not the data set's, or there are fewer than two.
        """
        head = find_head(model, role, self.stage, self.levels)
        check_classes(head, self.data)
        if head.num_classes + (self.background and head.background) < 2:
            rule = 'two or more, as neural collapse compares the means of classes'
            found = f'{head.num_classes}, {", ".join(self.data.classes)}'
            remedy = 'With background=True (--background) a head that scores the background has two.'
            raise value_error('the classes to measure', rule, found, remedy)
        return head

    def moments(self, model: Any, head: Any, preprocess: Callable | None = None, title: str | None = None) -> Moments:
        """The :class:`Moments` of this process's images; afterwards mode, buffers and random states are restored.

        Raises a ``ValueError`` if an embedding is inf or NaN.
        """
        moments = Moments(head.num_classes + (self.background and head.background), head.width)
        mine = self.indices[get_rank() :: get_world_size()]
        with undisturbed(model), ImageProgress(title, len(self.indices)) as progress:
            for index, regions in stream_regions(model, head, self.data, mine, self.workers, preprocess):
                add_regions(moments, regions, self.data, index)
                progress.step()
        return moments

    def measure(self, head: Any, moments: Moments) -> Collapse:
        """The :class:`Collapse` that follows from the moments of all processes."""
        names = list(self.data.classes)
        if len(moments.counts) > len(names):
            names.append('background')
        return measure(moments, classifier_rows(head), names, self.min_regions)

    def run(self, model: nn.Module, role: str, preprocess: Callable | None = None) -> Collapse:
        """Finds the head, sums the moments of all processes and measures; each process has to call it."""
        head = self.head(model, role)
        moments = self.moments(model, head, preprocess, role)
        moments.all_reduce()
        return self.measure(head, moments)


def classifier_rows(head: Any) -> Tensor | None:
    """The classifier's rows (R, D); None where no linear layer scores the embeddings."""
    rows = head.classifier_rows()
    if rows.dim() != 2 or rows.shape[1] != head.width:
        return None
    return rows.detach()
