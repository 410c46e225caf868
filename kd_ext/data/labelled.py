"""A data set's images in order, unaugmented, with the labels a loss needs.

mmdet's test pipelines load annotations behind the resizing, for boxes in the coordinates of the original image; a
loss needs them in those of the input.
"""

import re
from copy import deepcopy

from mmengine.registry import DATASETS

from kd_ext.data.images import LOADS_LABELS, SplitImages, data_scope, kind_of, plain_pipeline, split_parts, spread
from kd_ext.errors import value_error

__all__ = ['LabelledData', 'class_names', 'labelled_pipeline', 'split_parts', 'spread']
LOADS_IMAGES = re.compile(r'Load\w*Image')


def class_names(cfg, split='train'):
    """Names of a split's classes, without reading the data set."""
    part = split_parts(cfg, split)[0][0]
    classes = (part.get('metainfo') or {}).get('classes')
    if classes is None:
        with data_scope(cfg), DATASETS.switch_scope_and_registry(part.get('_scope_')) as registry:
            kind = registry.get(part['type'])
        classes = kind.METAINFO.get('classes') if kind else None
    return list(classes or ())


def labelled_pipeline(test, train):
    """The test pipeline, with the training's annotations behind its loading.

    Boxes without area are filtered out. Nothing in it is random.

    Args:
        test, train (Sequence[dict]): Pipelines.

    Raises:
        ValueError: The test pipeline loads no image.
    """
    load = [one for one in train if LOADS_LABELS.fullmatch(kind_of(one))] or [
        dict(type='LoadAnnotations', with_bbox=True)
    ]
    thin = (
        [one for one in train if kind_of(one) == 'FilterAnnotations']
        or [dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1))]
    )[-1:]
    # an image without boxes would be exchanged for a random one
    thin = [dict(one, keep_empty=False) for one in thin]
    steps = [one for one in test if not LOADS_LABELS.fullmatch(kind_of(one))]
    loads = [index for index, one in enumerate(steps) if LOADS_IMAGES.match(kind_of(one))]
    if not loads:
        raise value_error(
            "the validation's pipeline", 'one that loads images', ', '.join(kind_of(one) for one in test) or 'empty'
        )
    first = loads[-1] + 1
    packs = [index for index, one in enumerate(steps) if kind_of(one).startswith('Pack')]
    last = max(packs[-1] if packs else len(steps), first)
    return deepcopy([*steps[:first], *load, *steps[first:last], *thin, *steps[last:]])


class LabelledData(SplitImages):
    """Images of a split by index: what the pipeline packs, or None.

    None stands for an image that the pipeline leaves out.

    Args:
        cfg (Config): With dataloaders, as for training. Wrappers that repeat or mix images count as what they
            wrap; ``filter_cfg`` holds.
        split (str): ``'train'``, ``'val'`` or ``'test'``.

    Attributes:
        classes (list[str]): Of the data set.
        configs (list[dict]): As built, for an identity.

    Raises:
        ValueError: No such split, no annotation, or parts of several classes.
    """

    def __init__(self, cfg, split='train'):
        test = plain_pipeline(cfg)
        parts = split_parts(cfg, split)
        labels = (
            parts
            if split == 'train' or not cfg.get('train_dataloader')
            else split_parts(cfg, 'train')[:1] * len(parts)
        )
        # test_mode would leave filter_cfg aside
        self.build(
            cfg,
            split,
            [
                dict(deepcopy(part), pipeline=labelled_pipeline(test, train), test_mode=False)
                for (part, _), (_, train) in zip(parts, labels)
            ],
        )
        self.classes = self._common_classes()
        self._check_labels()

    def _common_classes(self):
        classes = [list(part.metainfo.get('classes') or ()) for part in self.parts]
        if not classes[0] or any(one != classes[0] for one in classes):
            raise value_error(
                f'{self.split}_dataloader',
                'of one set of classes',
                ' and '.join(str(len(one)) for one in classes),
                'Give metainfo=dict(classes=...) to each data set.',
            )
        return classes[0]

    def _check_labels(self):
        for part in self.parts:
            if any(part.get_data_info(index).get('instances') for index in range(len(part))):
                return
        raise value_error(
            f'{self.split}_dataloader',
            'a data set with annotated images',
            f'{len(self)} images without a single annotation',
            'Choose another split, or correct ann_file, metainfo.classes and filter_cfg.',
        )


def check_classes(head, data):
    """That a model's classes are those of a data set, by number.

    Raises:
        ValueError: They are not.
    """
    if head.num_classes != len(data.classes):
        names = ', '.join(data.classes[:3])
        raise value_error(
            f'the classes of {data.split}_dataloader',
            f'the {head.num_classes} of {head.name}',
            f'{len(data.classes)} ({names}, ...)',
            'Give the data set that the model was trained on.',
        )
