"""The images of a split, in order, with the transforms of validation."""

from __future__ import annotations

import contextlib
import re
from copy import deepcopy
from typing import Any, Iterator, Sequence

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

from kd_ext.build.configs import type_name
from kd_ext.build.detector import detector_scope
from kd_ext.data.unwrap import Part, unwrap
from kd_ext.errors import value_error

LOADS_LABELS = re.compile(r'Load\w*Annotations')
SPLITS = ('train', 'val', 'test')


def split_parts(cfg: Config, split: str) -> list[Part]:
    """The data sets of a split, without wrappers; raises a ``ValueError`` if the config has no such split."""
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    if not isinstance(dataset, dict):
        known = [name for name in SPLITS if cfg.get(f'{name}_dataloader')]
        raise value_error(
            f'{split}_dataloader', 'a dict with a dataset', 'none', f'The config has: {", ".join(known) or "no data"}.'
        )
    return list(unwrap(dataset, f'{split}_dataloader.dataset'))


@contextlib.contextmanager
def data_scope(cfg: Config) -> Iterator[None]:
    """Context with the default scope of a config's data sets: its own, or mmdet."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), detector_scope():
        yield


def plain_pipeline(cfg: Config) -> Sequence[dict]:
    """The transforms of validation or, without one, of the test; raises a ``ValueError`` if the config has neither."""
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            return split_parts(cfg, split)[0].pipeline
    pipeline = cfg.get('test_pipeline')
    if not pipeline:
        raise value_error(
            'the config',
            'one with val_dataloader, test_dataloader or test_pipeline',
            'none of them',
            'Images go through the transforms of validation: without augmentation.',
        )
    return pipeline


class SplitImages(Dataset):
    """Images of a split by index, without annotations.

    Args:
        cfg: Config of a detector or a segmentor, with dataloaders. Wrappers that repeat or mix images are ignored.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        ValueError: The split does not exist or has no image.
    """

    def __init__(self, cfg: Config, split: str = 'val') -> None:
        pipeline = [one for one in plain_pipeline(cfg) if not LOADS_LABELS.fullmatch(type_name(one))]
        configs = [dict(deepcopy(part.config), pipeline=deepcopy(pipeline)) for part in split_parts(cfg, split)]
        self.build(cfg, split, configs)
        if not len(self):
            raise value_error(
                f'{split}_dataloader',
                'a data set with images',
                'none',
                'Correct ann_file, data_prefix and filter_cfg.',
            )

    def build(self, cfg: Config, split: str, configs: list[dict]) -> None:
        """Builds the data sets of ``configs``; indices run through them one after the other."""
        self.split, self.configs = split, configs
        with data_scope(cfg):
            self.parts = [_built(part, f'{split}_dataloader') for part in configs]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def _find(self, index: int) -> tuple[Any, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)

    def __getitem__(self, index: int) -> Any:
        part, inside = self._find(index)
        return part.prepare_data(inside)

    def path(self, index: int) -> str | None:
        """The file of an image, for messages."""
        return self.info(index).get('img_path')

    def info(self, index: int) -> dict[str, Any]:
        """What the data set lists for an image."""
        part, inside = self._find(index)
        return part.get_data_info(inside)


def _built(cfg: dict, key: str) -> Any:
    try:
        return DATASETS.build(cfg)
    except ValueError as error:
        if 'at least one array' not in str(error):  # NumPy's message for an empty list of images
            raise
        raise value_error(
            key,
            'a data set with images',
            'none that its classes and filters keep',
            'Correct ann_file, metainfo.classes and filter_cfg.',
        ) from error


def spread(total: int, count: int | None = None) -> list[int]:
    """``count`` indices spread evenly over ``range(total)``; all of them by default."""
    count = total if count is None else min(count, total)
    return [index * total // count for index in range(count)]
