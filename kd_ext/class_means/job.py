"""Sums the embeddings of a data set by class; the job can be stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, broadcast_object_list, get_rank, get_world_size, is_main_process
from torch import Tensor, nn

from kd_ext.class_means.moments import Sums
from kd_ext.class_means.partials import Partial, Partials
from kd_ext.class_means.stored import ClassMeans
from kd_ext.data.progress import ImageProgress
from kd_ext.data.regions import stream_regions


def add_regions(sums: Sums, regions: Any, data: Any, index: int) -> None:
    """Adds the :class:`Regions` of an image; raises a ``ValueError`` that names the image if one is not finite."""
    if regions is None:
        return
    try:
        sums.add(regions.embeddings, regions.labels)
    except ValueError as error:
        raise ValueError(f'{error} Image {index} of the data set: {data.path(index)}') from error


class MeanJob:
    """Computes the class means of a model's embeddings over images of a data set.

    Each process takes every world-th image that is not done yet. The result depends neither on the number of
    processes nor on interruptions, up to float64 rounding.

    Args:
        model: In eval mode, with its ``head`` from ``find_head``.
        data: The :class:`LabelledData`, of which the images at ``indices`` are used.
        out: File that the means will go to; the partial results, of this ``identity``, lie beside it.
        save_every: Images between two saves of a process.
        workers: Data workers of each process.
        fresh: Delete partial results instead of resuming from them.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Any,
        data: Any,
        indices: Sequence[int],
        out: str | Path,
        identity: dict[str, str],
        save_every: int = 500,
        workers: int = 0,
        fresh: bool = False,
    ) -> None:
        self.model, self.head, self.data = model, head, data
        self.indices = torch.as_tensor(list(indices))
        self.save_every, self.workers, self.fresh = save_every, workers, fresh
        self.partials = Partials(out, identity, head.num_labels, head.width, len(data))
        self.partial, self._consistent = self.partials.empty(), True

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Sums the remaining images and saves the partial result; ``stop`` is asked after each image.

        Returns whether this process has finished its images.
        """
        self.partial, left = self._start()
        mine = left[get_rank() :: get_world_size()]
        before = len(self.indices) - len(left)
        try:
            with ImageProgress('class means', len(self.indices), before) as progress:
                finished = self._sum(mine.tolist(), progress, stop)
        except RuntimeError as error:
            # a signal to all processes ends the data workers too
            if 'exited unexpectedly' not in str(error) or not stop():
                raise
            finished = False
        finally:
            if self._consistent:
                self.partials.write(get_rank(), self.partial)
        return finished

    def _start(self) -> tuple[Partial, Tensor]:
        """This process's partial result, and the images that all processes still have to do."""
        plan: list
        partial, plan = self.partials.empty(), [None]
        if is_main_process():
            if self.fresh:
                self.partials.remove()
            partial = self.partials.merge()
            plan = [self.indices[~partial.done[self.indices]]]
        broadcast_object_list(plan)
        return partial, plan[0]

    def _sum(self, indices: Sequence[int], progress: ImageProgress, stop: Callable[[], bool]) -> bool:
        if stop():
            return not indices
        for index, regions in stream_regions(self.model, self.head, self.data, indices, self.workers):
            self._consistent = False
            add_regions(self.partial.sums, regions, self.data, index)
            self.partial.done[index] = True
            self._consistent = True
            progress.step()
            if stop():
                return index == indices[-1]
            if progress.images % self.save_every == 0:
                self.partials.write(get_rank(), self.partial)
        return True

    def result(self) -> ClassMeans:
        """The :class:`ClassMeans` of all processes, without classes; every process has to call it, once."""
        # in a copy: this process's own sums must not count for all processes
        sums = self.partials.empty().sums.merge(self.partial.sums)
        sums.all_reduce()
        images = self.partial.done.sum()
        all_reduce(images)
        return ClassMeans(sums.means, sums.counts.long(), info=dict(images=int(images)))

    def finish(self) -> None:
        """Deletes the partial results; call it after the means are saved."""
        barrier()
        if is_main_process():
            self.partials.remove()
