"""A data set's images in order, without augmentation, with labels for a loss.

mmdet's test pipelines load annotations after resizing, so boxes are in coordinates of the original image; a loss
needs them in those of the input.
"""

from __future__ import annotations

import os
import re
from copy import deepcopy
from typing import Any, Sequence

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from kd_ext.build.configs import type_name
from kd_ext.data.images import LOADS_LABELS, SplitImages, data_scope, plain_pipeline, split_parts, spread
from kd_ext.errors import value_error

__all__ = ['LabelledData', 'class_names', 'labelled_pipeline', 'spread']
LOADS_IMAGES = re.compile(r'Load\w*Image')


def class_names(cfg: Config, split: str = 'train') -> list[str]:
    """Names of a split's classes, without reading the data set.

    Raises:
        ValueError: ``metainfo.classes`` is neither a sequence of names nor a file of names.
    """
    part = split_parts(cfg, split)[0]
    classes = (part.config.get('metainfo') or {}).get('classes')
    if classes is None:
        with data_scope(cfg), DATASETS.switch_scope_and_registry(part.config.get('_scope_')) as registry:
            kind = registry.get(part.config['type'])
        classes = getattr(kind, 'METAINFO', {}).get('classes')
    return _names(classes, f'{part.key}.metainfo.classes')


def _names(classes: Any, key: str) -> list[str]:
    """The names in ``metainfo.classes``; a string is the path of a file with one name per line, as in MMEngine."""
    if isinstance(classes, str):
        if not os.path.isfile(classes):
            raise value_error(
                key,
                'a sequence of names, or a file with a name on each line',
                repr(classes),
                f'For a single class write classes=({classes!r},).',
            )
        classes = list_from_file(classes)
    return list(classes or ())


def labelled_pipeline(test: Sequence[dict], train: Sequence[dict]) -> list[dict]:
    """The test pipeline, with the training annotations loaded directly after the image.

    It drops boxes without area, and nothing in it is random.

    Raises:
        ValueError: The test pipeline loads no image.
    """
    load = [one for one in train if LOADS_LABELS.fullmatch(type_name(one))] or [
        dict(type='LoadAnnotations', with_bbox=True)
    ]
    thin = (
        [one for one in train if type_name(one) == 'FilterAnnotations']
        or [dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1))]
    )[-1:]
    # keep_empty=True drops an image without boxes, for which mmdet's data sets load a random other one
    thin = [dict(one, keep_empty=False) for one in thin]
    steps = [one for one in test if not LOADS_LABELS.fullmatch(type_name(one))]
    loads = [index for index, one in enumerate(steps) if LOADS_IMAGES.match(type_name(one))]
    if not loads:
        raise value_error(
            "the validation's pipeline", 'one that loads images', ', '.join(type_name(one) for one in test) or 'empty'
        )
    first = loads[-1] + 1
    packs = [index for index, one in enumerate(steps) if type_name(one).startswith('Pack')]
    last = max(packs[-1] if packs else len(steps), first)
    return deepcopy([*steps[:first], *load, *steps[first:last], *thin, *steps[last:]])


class LabelledData(SplitImages):
    """Images of a split by index, as the pipeline packs them; None for an image that the pipeline drops.

    Args:
        cfg: Config with dataloaders, as for training. Wrappers that repeat or mix images are ignored;
            ``filter_cfg`` applies.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Attributes:
        classes: Names of the data set's classes.
        configs: Configs of the data sets as built; equal digests mean that two runs read the same data.

    Raises:
        ValueError: The split does not exist, has no annotation, or its parts have different classes.
    """

    def __init__(self, cfg: Config, split: str = 'train') -> None:
        test = plain_pipeline(cfg)
        parts = split_parts(cfg, split)
        labels = parts
        if split != 'train' and cfg.get('train_dataloader'):
            labels = split_parts(cfg, 'train')[:1] * len(parts)
        # test_mode would ignore filter_cfg
        configs = [
            dict(deepcopy(part.config), pipeline=labelled_pipeline(test, label.pipeline), test_mode=False)
            for part, label in zip(parts, labels)
        ]
        self.build(cfg, split, configs)
        self.classes = self._common_classes()
        self._check_labels()

    def _common_classes(self) -> list[str]:
        key = f'{self.split}_dataloader.dataset.metainfo.classes'
        classes = [_names(part.metainfo.get('classes'), key) for part in self.parts]
        if not classes[0] or any(one != classes[0] for one in classes):
            raise value_error(
                f'{self.split}_dataloader',
                'of one set of classes',
                ' and '.join(str(len(one)) for one in classes),
                'Give metainfo=dict(classes=...) to each data set.',
            )
        return classes[0]

    def annotated(self, index: int) -> bool:
        """Whether the data set lists annotations for an image."""
        return bool(self.info(index).get('instances'))

    def _check_labels(self) -> None:
        if any(map(self.annotated, range(len(self)))):
            return
        raise value_error(
            f'{self.split}_dataloader',
            'a data set with annotated images',
            f'{len(self)} images without a single annotation',
            'Choose another split, or correct ann_file, metainfo.classes and filter_cfg.',
        )


def check_classes(head: Any, data: LabelledData) -> None:
    """Raises a ``ValueError`` unless a head has as many classes as a data set."""
    if head.num_classes != len(data.classes):
        names = ', '.join(data.classes[:3])
        raise value_error(
            f'the classes of {data.split}_dataloader',
            f'the {head.num_classes} of {head.name}',
            f'{len(data.classes)} ({names}, ...)',
            'Give the data set that the model was trained on.',
        )
