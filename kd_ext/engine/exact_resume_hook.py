"""Random numbers that a resumed training draws as an unbroken one would."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from kd_ext.errors import value_error
from kd_ext.registry import HOOKS

STEP, DATA = 0, 1


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes random numbers depend on seed, rank and position alone.

    MMEngine resumes weights, optimizer and schedules, but no random states: regions are sampled and images flipped
    in another way than without the break. With this hook every step, and every epoch's reading of images, starts
    from a seed of its own, so a resumed training ends with the weights of an unbroken one, bit for bit where the
    machine computes so. Nothing is added to checkpoints. Random numbers differ from those of a training without
    the hook.

    Where training is by iteration, MMEngine reads all images of the earlier iterations again. What augmentations
    and preprocessors keep between images (``CachedMosaic``, the size of ``BatchSyncRandomResize``) is not restored
    where it is by epoch.

    Raises:
        ValueError: Data workers outlive an epoch that training goes by.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner):
        """Takes hold of what draws random numbers while reading images."""
        loader = runner.train_dataloader
        self.by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._worker_init = getattr(loader, 'worker_init_fn', None)
        if self.by_epoch and getattr(loader, 'persistent_workers', False):
            raise value_error(
                'train_dataloader.persistent_workers',
                'False for kd_ext.ExactResumeHook where training is by epoch',
                'True',
                'Workers that go on keep random states of their own.',
            )
        if not self.by_epoch and not getattr(loader, 'num_workers', 0):
            runner.train_loop.dataloader_iterator = _Seeded(runner.train_loop.dataloader_iterator, runner.seed)

    def before_train_epoch(self, runner):
        """Seeds the reading of an epoch's images, here and in workers."""
        if not self.by_epoch:
            return
        place = runner.seed, DATA, runner.epoch
        seed_all(*place)
        runner.train_dataloader.worker_init_fn = _WorkerSeed(place, self._worker_init)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Seeds the step."""
        seed_all(runner.seed, STEP, runner.iter)


def seed_all(*place):
    """Seeds Python, numpy and torch for a place and this rank."""
    drawn = np.random.SeedSequence([*place, get_rank()]).generate_state(1)
    seed = int(drawn[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class _WorkerSeed:
    """A ``worker_init_fn`` for the workers of one epoch."""

    def __init__(self, place, before):
        self.place, self.before = (*place, get_rank()), before

    def __call__(self, worker_id):
        if self.before is not None:
            self.before(worker_id)
        seed_all(*self.place, worker_id)  # a worker has no rank


class _Seeded:
    """Seeds before each batch; counts those skipped on resuming too."""

    def __init__(self, iterator, seed):
        self.iterator, self.seed, self.count = iterator, seed, 0

    def __iter__(self):
        return self

    def __next__(self):
        seed_all(self.seed, DATA, self.count)
        self.count += 1
        return next(self.iterator)
