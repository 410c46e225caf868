"""Finds the data sets inside RepeatDataset, ConcatDataset, MultiImageMixDataset and ClassBalancedDataset."""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple


class Part(NamedTuple):
    """An innermost data set.

    Attributes:
        key: Its key in the config: ``train_dataloader.dataset.dataset``.
        config: Its own config.
        pipeline: Its transforms and then those of its wrappers, in the order in which they run.
    """

    key: str
    config: dict
    pipeline: tuple[dict, ...]


def unwrap(dataset: Any, key: str = 'dataset', outer: tuple[dict, ...] = ()) -> Iterator[Part]:
    """Yields each innermost data set of a config; nothing if ``dataset`` is not a config.

    ``key`` is its place in the whole config; ``outer`` are the transforms of the wrappers around it.
    """
    if not isinstance(dataset, dict):
        return
    pipeline = (*(dataset.get('pipeline') or ()), *outer)
    if isinstance(dataset.get('dataset'), dict):
        yield from unwrap(dataset['dataset'], f'{key}.dataset', pipeline)
    elif isinstance(dataset.get('datasets'), (list, tuple)):
        for index, part in enumerate(dataset['datasets']):
            yield from unwrap(part, f'{key}.datasets.{index}', pipeline)
    else:
        yield Part(key, dataset, pipeline)
