"""Makes a resumed training draw the same random numbers as an uninterrupted one."""

from __future__ import annotations

import random
from typing import Any, Callable, Iterator

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from kd_ext.errors import value_error
from kd_ext.registry import HOOKS

STEP, DATA = 0, 1


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes random numbers depend on seed, rank and position in the training alone.

    MMEngine resumes weights, optimizer and schedules, but no random states, so a resumed training samples other
    regions and flips other images. With this hook every step, and the reading of images in every epoch, starts
    from its own seed. A resumed training then ends with the weights of an uninterrupted one, bit for bit if the
    machine computes deterministically. Checkpoints stay as they are. Random numbers differ from those of a
    training without the hook.

    Iteration-based training reads the images of earlier iterations again. Epoch-based training does not, so what
    augmentations and preprocessors keep between images (``CachedMosaic``, the size of ``BatchSyncRandomResize``)
    is not restored.

    Raises:
        ValueError: ``train_dataloader.persistent_workers`` is set in an epoch-based training.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Seeds the reading of images in an iteration-based training."""
        loader = runner.train_dataloader
        self.by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._worker_init = getattr(loader, 'worker_init_fn', None)
        if self.by_epoch and getattr(loader, 'persistent_workers', False):
            rule = 'False for kd_ext.ExactResumeHook where training is by epoch'
            remedy = 'Persistent workers keep random states of their own from epoch to epoch.'
            raise value_error('train_dataloader.persistent_workers', rule, 'True', remedy)
        sampler: Any = getattr(getattr(loader, 'batch_sampler', None), 'sampler', None)
        if self.by_epoch and hasattr(sampler, 'dataset_cycle_iter'):
            for _ in range(runner.epoch):  # CustomSampleSizeSampler of mmdet draws on where the last epoch ended
                iter(sampler)
        if not self.by_epoch and not getattr(loader, 'num_workers', 0):
            runner.train_loop.dataloader_iterator = _Seeded(runner.train_loop.dataloader_iterator, runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds the reading of an epoch's images, in this process and in its data workers."""
        if not self.by_epoch:
            return
        place = runner.seed, DATA, runner.epoch
        seed_all(*place)
        runner.train_dataloader.worker_init_fn = _WorkerSeed(place, self._worker_init)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_all(runner.seed, STEP, runner.iter)


def seed_all(*place: int) -> None:
    """Seeds Python, numpy and torch from a position in the training and the rank."""
    drawn = np.random.SeedSequence([*place, get_rank()]).generate_state(1)
    seed = int(drawn[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class _WorkerSeed:
    """A ``worker_init_fn`` for the workers of one epoch."""

    def __init__(self, place: tuple[int, ...], before: Callable[[int], None] | None) -> None:
        self.place, self.before = (*place, get_rank()), before

    def __call__(self, worker_id: int) -> None:
        if self.before is not None:
            self.before(worker_id)
        seed_all(*self.place, worker_id)  # place has the rank, which a worker may not know


class _Seeded:
    """Seeds before each batch, including those that MMEngine skips on resuming."""

    def __init__(self, iterator: Iterator[Any], seed: int) -> None:
        self.iterator, self.seed, self.count = iterator, seed, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        seed_all(self.seed, DATA, self.count)
        self.count += 1
        return next(self.iterator)
