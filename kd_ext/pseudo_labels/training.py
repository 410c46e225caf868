"""Puts a file of labels into the config of a training, as data sets and samplers of MMEngine and mmdet."""

from __future__ import annotations

import inspect
import os
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any, Iterator

from mmengine.config import Config
from mmengine.registry import DATASETS

from kd_ext.build.configs import distills, type_name
from kd_ext.data.images import LOADS_LABELS, data_scope, split_parts
from kd_ext.data.labelled import class_names
from kd_ext.errors import is_number, value_error
from kd_ext.pseudo_labels.coco_file import SCORE, image_root, read_labels

IGNORE_IOF = 0.5  # part of an anchor or a proposal inside a region to ignore, from which on it is ignored
DIFFERENT = ['dataset_type', 'palette', 'task_name']  # meta information that other kinds of data sets have


def unlabelled_config(
    cfg: Config, path: str | Path, ratio: float = 1.0, labelled_images: int | None = None, weight: float | str = 1.0
) -> list[str]:
    """Adds the images of a file of labels to the training data of a config, in place.

    The data set becomes ``ConcatDataset([<as it was>, CocoDataset(<the file>)])``. By epoch, mmdet's
    ``CustomSampleSizeSampler`` takes all labelled images and ``ratio`` times as many others; by iteration,
    ``MultiSourceSampler`` mixes them 1 to ``ratio``. Assigners that can leave regions out (``ignore_iof_thr``) leave
    those of the file out.

    Args:
        cfg: Of a detector, or one that distills.
        path: The file, from ``kd_ext pseudo-label``.
        ratio: Unlabelled images for each labelled one.
        labelled_images: Their number; None reads the data set to count them.
        weight: Of the labels in the student's own loss, from 0 to 1, or ``'score'`` for the score of each; see
            :mod:`kd_ext.pseudo_labels.weights`.

    Returns:
        What was done, a sentence each.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has other classes, or lacks masks that the training loads; or the config cannot take it.
    """
    if not is_number(ratio) or ratio <= 0:
        raise value_error('--unlabelled-ratio', 'a number > 0', repr(ratio), 'Leave --unlabelled out for 0.')
    content = read_labels(path)
    loader = cfg.train_dataloader
    part = split_parts(cfg, 'train')[0]
    names = class_names(cfg)
    found = [one['name'] for one in content['categories']]
    if found != names:
        raise value_error(
            f'the classes of {str(path)!r}',
            f'those of the training data ({", ".join(names[:5])}{", ..." if names[5:] else ""})',
            f'{", ".join(found[:5])}{", ..." if found[5:] else ""}',
            'Label the images for this config: kd_ext pseudo-label --data CONFIG.',
        )
    old, labelled = loader.dataset, dict(part.config)
    if 'MultiImageMixDataset' in map(type_name, _wrappers(old)):
        raise value_error(
            'train_dataloader.dataset',
            'without MultiImageMixDataset for --unlabelled',
            'one',
            'It mixes images of one data set alone. Use CachedMosaic and CachedMixUp in the pipeline instead.',
        )
    dataset = dict(
        {key: labelled[key] for key in ('_scope_',) if key in labelled},
        type='CocoDataset' if labelled.get('_scope_') == 'mmdet' else 'mmdet.CocoDataset',
        ann_file=os.path.abspath(path),
        data_prefix=dict(img=image_root(content, path)),
        metainfo=dict(classes=(labelled.get('metainfo') or {}).get('classes') or tuple(names)),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=_pipeline(labelled['pipeline'], content, path),
    )
    loop = cfg.get('train_cfg') or {}
    if not loop.get('by_epoch', type_name(loop) == 'EpochBasedTrainLoop'):
        labelled_images = None
    elif labelled_images is None:
        with data_scope(cfg):
            labelled_images = len(DATASETS.build(deepcopy(old)))
    loader.dataset = dict(type='mmdet.ConcatDataset', ignore_keys=DIFFERENT, datasets=[old, dataset])
    done = [_set_sampler(cfg, labelled_images, content['info']['images'], ratio), _ignore(cfg, content)]
    return done if weight == 1 else [*done, _weigh(cfg, dataset, weight)]


def _weigh(cfg: Config, dataset: dict, weight: float | str) -> str:
    """Gives the labels of a data set a weight."""
    from kd_ext.pseudo_labels.weights import WeighLabels  # imports the heads of mmdet

    WeighLabels(weight)  # refuses what it cannot use
    steps = dataset['pipeline']
    names = [type_name(step) for step in steps]
    if names[-1] != 'PackDetInputs' or not any(LOADS_LABELS.fullmatch(name) for name in names):
        raise value_error(
            'the training pipeline',
            'one that loads annotations and ends in PackDetInputs for --unlabelled-weight',
            ', '.join(names),
        )
    steps[-1]['type'] = 'kd_ext.PackWeighedInputs'
    place = max(index for index, name in enumerate(names) if LOADS_LABELS.fullmatch(name))
    steps.insert(place + 1, dict(type='kd_ext.WeighLabels', weight=weight))
    if weight == SCORE:
        dataset['type'] = 'kd_ext.ScoredCocoDataset'
    # in place: cfg holds a copy of the data set as it was
    cfg.train_dataloader.dataset.datasets[1] = dataset
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='kd_ext.LabelWeightHook')]
    return f'the weight of these labels is {"their score" if weight == SCORE else weight}'


def _wrappers(dataset: Any) -> Iterator[dict]:
    while isinstance(dataset, dict):
        yield dataset
        dataset = dataset.get('dataset')


def _pipeline(steps: list, content: dict[str, Any], path: Any) -> list:
    """The training's transforms, for labels of this file."""
    steps = deepcopy(list(steps))
    for step in steps:
        if step.get('with_seg'):
            raise value_error(
                'the training pipeline',
                'without with_seg for --unlabelled',
                f'{type_name(step)}(with_seg=True)',
                'A detector gives no semantic map.',
            )
        if step.get('with_mask'):
            if not any(one['segmentation'] for one in content['annotations']):
                raise value_error(
                    f'the labels in {str(path)!r}',
                    'with masks, which the training pipeline loads',
                    'boxes alone',
                    'Take a teacher that predicts masks, or a student without them.',
                )
            step['poly2mask'] = True  # masks of the file are RLE, which this step would otherwise ignore
    return steps


def _set_sampler(cfg: Config, labelled: int | None, unlabelled: int, ratio: float) -> str:
    """Sets a sampler of epochs with all ``labelled`` images or, without their number, an infinite one."""
    loader = cfg.train_dataloader
    if labelled is not None:
        count = min(round(ratio * labelled), unlabelled)
        loader.sampler = dict(type='mmdet.CustomSampleSizeSampler', dataset_size=[-1, count])
        return f'an epoch has all {labelled:,} labelled images and {count:,} of the {unlabelled:,} unlabelled ones'
    share = Fraction(ratio).limit_denominator(100)
    parts = [share.denominator, share.numerator]
    # the sampler rounds what is no whole number of images: then several batches together have the ratio
    size = loader.batch_size * next(
        count for count in range(1, sum(parts) + 1) if loader.batch_size * count % sum(parts) == 0
    )
    loader.sampler = dict(type='mmdet.MultiSourceSampler', batch_size=size, source_ratio=parts)
    return f'of each {size} images {size * parts[0] // sum(parts)} are labelled ones'


def _ignore(cfg: Config, content: dict[str, Any]) -> str:
    """Makes assigners leave the regions out that the file marks."""
    regions = sum(row['ignored'] for row in content['info']['counts'].values())
    model = cfg.model.student if distills(cfg.model) else cfg.model
    if not regions:
        return 'the labels have no region to ignore'
    found = {place: one for place, one in _assigners(model, '') if _can_ignore(one)}
    for one in found.values():
        if one.get('ignore_iof_thr', -1) <= 0:
            one['ignore_iof_thr'] = IGNORE_IOF
    if found:
        return f'{regions:,} regions with boxes below the thresholds are ignored by {", ".join(found)}'
    return (
        f'{regions:,} regions with boxes below the thresholds are background: this student has no assigner that can '
        'ignore them'
    )


def _assigners(value: Any, place: str) -> Iterator[tuple[str, dict]]:
    """Configs of assigners in a model config, with their places."""
    if isinstance(value, dict):
        if type_name(value).endswith('Assigner'):
            yield place[1:], value
        for key, one in value.items():
            yield from _assigners(one, f'{place}.{key}')
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _assigners(one, f'{place}.{index}')


def _can_ignore(assigner: dict) -> bool:
    from mmdet.registry import TASK_UTILS

    kind = TASK_UTILS.get(type_name(assigner))
    return kind is not None and 'ignore_iof_thr' in inspect.signature(kind).parameters
