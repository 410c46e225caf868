"""Builds the runner of a config and joins the processes of a launcher."""

from __future__ import annotations

import torch.distributed
from mmengine import dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def build_runner(cfg: Config) -> Runner:
    """Builds the runner, of another class if the config sets ``runner_type``."""
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    setup_cache_size_limit_of_dynamo()
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        join_on_cpus(cfg)
    if 'runner_type' not in cfg:
        return Runner.from_cfg(cfg)
    return RUNNERS.build(cfg)


def join(cfg: Config) -> None:
    """Joins the launcher's processes, for a tool without a runner."""
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        join_on_cpus(cfg)
    elif cfg.launcher != 'none' and not dist.is_distributed():
        options = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
        dist.init_dist(cfg.launcher, **options)


def leave() -> None:
    """Leaves the group that :func:`join` made; every process has to call it."""
    if dist.is_distributed():
        # gloo's threads abort a rank that exits while they run
        dist.barrier()
        torch.distributed.destroy_process_group()


def join_on_cpus(cfg: Config) -> None:
    """Joins processes without GPUs; MMEngine expects one GPU for each."""
    if not dist.is_distributed():
        torch.distributed.init_process_group('gloo')
    cfg.setdefault(
        'model_wrapper_cfg',
        dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ),
    )
