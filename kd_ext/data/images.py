"""The images of a config's split, in order, as validation transforms them."""

import contextlib
import re
from copy import deepcopy

from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

from kd_ext.build.detector import detector_scope
from kd_ext.errors import value_error

LOADS_LABELS = re.compile(r'Load\w*Annotations')
SPLITS = ('train', 'val', 'test')


def kind_of(cfg):
    """The type of a config, without the scope."""
    kind = cfg.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[-1]


def _parts(dataset, outer=()):
    """The data sets inside of any wrappers, each with its whole pipeline."""
    pipeline = (*(dataset.get('pipeline') or ()), *outer)
    if isinstance(dataset.get('dataset'), dict):
        yield from _parts(dataset['dataset'], pipeline)
    elif isinstance(dataset.get('datasets'), (list, tuple)):
        for part in dataset['datasets']:
            yield from _parts(part, pipeline)
    else:
        yield dataset, pipeline


def split_parts(cfg, split):
    """Config and pipeline of each data set of a split; no wrapper.

    Raises:
        ValueError: The config has no such split.
    """
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    if not isinstance(dataset, dict):
        known = [name for name in SPLITS if cfg.get(f'{name}_dataloader')]
        raise value_error(
            f'{split}_dataloader', 'a dict with a dataset', 'none', f'The config has: {", ".join(known) or "no data"}.'
        )
    return list(_parts(dataset))


@contextlib.contextmanager
def data_scope(cfg):
    """The scope that a config's data sets are built under."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), detector_scope():
        yield


def plain_pipeline(cfg):
    """The transforms of validation, else of testing.

    Raises:
        ValueError: The config has neither.
    """
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            return split_parts(cfg, split)[0][1]
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
        cfg (Config): With dataloaders, of a detector or a segmentor. Wrappers that repeat or mix images count as
            what they wrap.
        split (str): ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        ValueError: No such split, or no image in it.
    """

    def __init__(self, cfg, split='val'):
        pipeline = [one for one in plain_pipeline(cfg) if not LOADS_LABELS.fullmatch(kind_of(one))]
        self.build(
            cfg, split, [dict(deepcopy(part), pipeline=deepcopy(pipeline)) for part, _ in split_parts(cfg, split)]
        )
        if not len(self):
            raise value_error(
                f'{split}_dataloader',
                'a data set with images',
                'none',
                'Correct ann_file, data_prefix and filter_cfg.',
            )

    def build(self, cfg, split, configs):
        """Builds the data sets that the images are of."""
        self.split, self.configs = split, configs
        with data_scope(cfg):
            self.parts = [DATASETS.build(part) for part in configs]

    def __len__(self):
        return sum(len(part) for part in self.parts)

    def _find(self, index):
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)

    def __getitem__(self, index):
        part, inside = self._find(index)
        return part.prepare_data(inside)

    def path(self, index):
        """Of an image, for messages."""
        part, inside = self._find(index)
        return part.get_data_info(inside).get('img_path')


def spread(total, count=None):
    """``count`` indices spread evenly over ``total``; all by default."""
    count = total if count is None else min(count, total)
    return [index * total // count for index in range(count)]
