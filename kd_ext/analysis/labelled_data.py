"""A data set's images in order, unaugmented, with the labels a loss needs.

mmdet's test pipelines load annotations behind the resizing, for boxes in the
coordinates of the original image; a loss needs them in those of the input.
"""

import contextlib
import re
from copy import deepcopy

from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

from kd_ext.algorithms.teacher import detector_scope
from kd_ext.messages import expected

LOADS_IMAGES = re.compile(r'Load\w*Image')
LOADS_LABELS = re.compile(r'Load\w*Annotations')
SPLITS = ('train', 'val', 'test')


def _kind(cfg):
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
        raise ValueError(expected(
            f'{split}_dataloader', 'a dict with a dataset', 'none',
            f'The config has: {", ".join(known) or "no data"}.'))
    return list(_parts(dataset))


def class_names(cfg, split='train'):
    """Names of a split's classes, without reading the data set."""
    part = split_parts(cfg, split)[0][0]
    classes = (part.get('metainfo') or {}).get('classes')
    if classes is None:
        with _scope(cfg), DATASETS.switch_scope_and_registry(
                part.get('_scope_')) as registry:
            kind = registry.get(part['type'])
        classes = kind.METAINFO.get('classes') if kind else None
    return list(classes or ())


@contextlib.contextmanager
def _scope(cfg):
    with DefaultScope.overwrite_default_scope(
            cfg.get('default_scope')), detector_scope():
        yield


def _test_pipeline(cfg):
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            return split_parts(cfg, split)[0][1]
    pipeline = cfg.get('test_pipeline')
    if not pipeline:
        raise ValueError(expected(
            'the config', 'one with val_dataloader, test_dataloader or '
            'test_pipeline', 'none of them', 'Images go through the '
            'transforms of validation: without augmentation.'))
    return pipeline


def labelled_pipeline(test, train):
    """The test pipeline, with the training's annotations behind its loading.

    Boxes without area are filtered out. Nothing in it is random.

    Args:
        test, train (Sequence[dict]): Pipelines.

    Raises:
        ValueError: The test pipeline loads no image.
    """
    load = ([one for one in train if LOADS_LABELS.fullmatch(_kind(one))]
            or [dict(type='LoadAnnotations', with_bbox=True)])
    thin = ([one for one in train if _kind(one) == 'FilterAnnotations']
            or [dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1))])[-1:]
    # an image without boxes would be exchanged for a random one
    thin = [dict(one, keep_empty=False) for one in thin]
    steps = [one for one in test if not LOADS_LABELS.fullmatch(_kind(one))]
    loads = [index for index, one in enumerate(steps)
             if LOADS_IMAGES.match(_kind(one))]
    if not loads:
        raise ValueError(expected(
            'the validation\'s pipeline', 'one that loads images',
            ', '.join(_kind(one) for one in test) or 'empty'))
    first = loads[-1] + 1
    packs = [index for index, one in enumerate(steps)
             if _kind(one).startswith('Pack')]
    last = max(packs[-1] if packs else len(steps), first)
    return deepcopy([*steps[:first], *load, *steps[first:last], *thin,
                     *steps[last:]])


class LabelledData(Dataset):
    """Images of a split by index: what the pipeline packs, or None.

    None stands for an image that the pipeline leaves out.

    Args:
        cfg (Config): With dataloaders, as for training. Wrappers that repeat
            or mix images count as what they wrap; ``filter_cfg`` holds.
        split (str): ``'train'``, ``'val'`` or ``'test'``.

    Attributes:
        classes (list[str]): Of the data set.
        configs (list[dict]): As built, for an identity.

    Raises:
        ValueError: No such split, no annotation, or parts of several classes.
    """

    def __init__(self, cfg, split='train'):
        test = _test_pipeline(cfg)
        parts = split_parts(cfg, split)
        labels = parts if split == 'train' or not cfg.get(
            'train_dataloader') else split_parts(cfg, 'train')[:1] * len(parts)
        # test_mode would leave filter_cfg aside
        self.configs = [
            dict(deepcopy(part), pipeline=labelled_pipeline(test, train),
                 test_mode=False)
            for (part, _), (_, train) in zip(parts, labels)]
        with _scope(cfg):
            self.parts = [DATASETS.build(part) for part in self.configs]
        self.split = split
        self.classes = self._common_classes()
        self._check_labels()

    def _common_classes(self):
        classes = [list(part.metainfo.get('classes') or ())
                   for part in self.parts]
        if not classes[0] or any(one != classes[0] for one in classes):
            raise ValueError(expected(
                f'{self.split}_dataloader', 'of one set of classes',
                ' and '.join(str(len(one)) for one in classes),
                'Give metainfo=dict(classes=...) to each data set.'))
        return classes[0]

    def _check_labels(self):
        for part in self.parts:
            if any(part.get_data_info(index).get('instances')
                   for index in range(len(part))):
                return
        raise ValueError(expected(
            f'{self.split}_dataloader', 'a data set with annotated images',
            f'{len(self)} images without a single annotation',
            'Choose another split, or correct ann_file, metainfo.classes and '
            'filter_cfg.'))

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
