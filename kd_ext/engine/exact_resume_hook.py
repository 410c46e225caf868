"""A resumed training draws the random numbers that an unbroken one would draw."""

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
    """Makes random numbers depend on seed, rank and position alone.

    MMEngine resumes weights, optimizer and schedules, but no random states, so a resumed training samples other
    regions and flips other images. With this hook every step, and every epoch's reading of images, starts from a
    seed of its own, so a resumed training ends with the weights of an unbroken one, bit for bit where the machine
    computes so. Nothing is added to checkpoints. Random numbers differ from those of a training without the hook.

    Where training is by iteration, MMEngine reads all images of the earlier iterations again. What augmentations
    and preprocessors keep between images (``CachedMosaic``, the size of ``BatchSyncRandomResize``) is not restored
    where it is by epoch.

    Raises:
        ValueError: ``train_dataloader.persistent_workers`` is set and training is by epoch.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Seeds what reads the images of a training by iteration."""
        loader = runner.train_dataloader
        self.by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._worker_init = getattr(loader, 'worker_init_fn', None)
        if self.by_epoch and getattr(loader, 'persistent_workers', False):
            raise value_error(
                'train_dataloader.persistent_workers',
                'False for kd_ext.ExactResumeHook where training is by epoch',
                'True',
                'Persistent workers keep random states of their own from epoch to epoch.',
            )
        if not self.by_epoch and not getattr(loader, 'num_workers', 0):
            runner.train_loop.dataloader_iterator = _Seeded(runner.train_loop.dataloader_iterator, runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds the reading of an epoch's images, here and in workers."""
        if not self.by_epoch:
            return
        place = runner.seed, DATA, runner.epoch
        seed_all(*place)
        runner.train_dataloader.worker_init_fn = _WorkerSeed(place, self._worker_init)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the step."""
        seed_all(runner.seed, STEP, runner.iter)


def seed_all(*place: int) -> None:
    """Seeds Python, numpy and torch for a place in a training and this rank."""
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
        seed_all(*self.place, worker_id)  # a worker has no rank


class _Seeded:
    """Seeds before each batch, also before those that MMEngine skips on resuming."""

    def __init__(self, iterator: Iterator[Any], seed: int) -> None:
        self.iterator, self.seed, self.count = iterator, seed, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        seed_all(self.seed, DATA, self.count)
        self.count += 1
        return next(self.iterator)
