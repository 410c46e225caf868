"""Builds the runner of a config."""

from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def build_runner(cfg):
    """The runner; ``runner_type`` in the config names another class."""
    from mmdet.utils import setup_cache_size_limit_of_dynamo
    setup_cache_size_limit_of_dynamo()
    if 'runner_type' not in cfg:
        return Runner.from_cfg(cfg)
    return RUNNERS.build(cfg)
