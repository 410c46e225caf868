"""Labels the images of folders by a teacher: from folders to the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, is_main_process

from kd_ext.build.configs import type_name
from kd_ext.data.images import LOADS_LABELS, SPLITS, SplitImages, plain_pipeline, split_parts, spread
from kd_ext.data.labelled import class_names
from kd_ext.engine.whole_files import write_text
from kd_ext.errors import value_error
from kd_ext.pseudo_labels.coco_file import coco_content, read_labels
from kd_ext.pseudo_labels.images import Folders, ImageBatches, find_images, in_batches
from kd_ext.pseudo_labels.job import FLOOR, DetectionJob
from kd_ext.pseudo_labels.thresholds import Truth, choose_thresholds, read_thresholds
from kd_ext.teachers.build import build_teacher
from kd_ext.teachers.class_map import ClassMap
from kd_ext.teachers.identity import PREFIX, checkpoint_digest, digest, versions

IGNORE = 0.5  # of a threshold: from there on boxes below the threshold are regions to ignore


@dataclass
class Teacher:
    """Who labels.

    Attributes:
        cfg: Whole config; its validation pipeline reads the images.
        model: Its model config.
        checkpoint: Path or URL of the weights.
        name: Of the config, without paths of this machine.
        classes: Names of its classes; None takes those in the checkpoint or else in the config.
        aliases: Its names for classes of the data that it names differently.
    """

    cfg: Config
    model: dict
    checkpoint: str
    name: str
    classes: list[str] | None = None
    aliases: dict[str, str] | None = None


@dataclass
class Labelling:
    """What is labelled, and how.

    Attributes:
        folders: Of the unlabelled images.
        cfg: Config of the labelled data. Its classes are those of the labels, thresholds are chosen on its images,
            and the images of all its splits are left out.
        out: File to write.
        split: Of the labelled data: ``'train'`` or ``'val'``.
        thresholds: See :func:`read_thresholds`; the others are chosen.
        ignore: Part of a threshold from which boxes below it are regions to ignore; 1 for none.
        max_images: Labelled images that thresholds are chosen on, at most.
        batch_size, workers: As in a dataloader.
        fresh: Start anew.
        replace: Replace a file of other labels; otherwise it is an error.
    """

    folders: Sequence[str]
    cfg: Config
    out: str
    split: str = 'train'
    thresholds: Sequence[str] = ()
    ignore: float = IGNORE
    max_images: int = 1000
    batch_size: int = 8
    workers: int = 2
    fresh: bool = False
    replace: bool = True
    classes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.ignore <= 1:
            raise value_error('--ignore', 'above 0 and at most 1', repr(self.ignore), '1 makes no regions to ignore.')
        self.classes = class_names(self.cfg, self.split)
        self.given = read_thresholds(self.thresholds, self.classes)

    def run(self, teacher: Teacher, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """Labels all images and writes the file, unless it is there already; every process has to call it.

        Args:
            teacher: See there.
            stop: Asked after each batch; True stops the job, which the next call takes up again.

        Returns:
            The content of the file on rank 0, ``{}`` on the others; None if it was stopped.

        Raises:
            FileNotFoundError: A folder does not exist or has no image to label.
            ValueError: Teacher and data share no class, no image can be read, nothing is detected, or there is a file
                of other labels.
        """
        data = _with_empty_images(self.cfg, self.split)
        shared: list[Any] = [self._find(data) if is_main_process() else None]
        broadcast_object_list(shared)
        images: Folders = shared[0]
        chosen = spread(len(data), self.max_images)
        paths = [*(data.path(index) or '' for index in chosen), *images.paths]

        model = build_teacher(teacher.model, teacher.checkpoint).to(get_device())
        mapped = class_map(self.classes, teacher, model)
        steps = [deepcopy(one) for one in plain_pipeline(teacher.cfg) if not LOADS_LABELS.fullmatch(type_name(one))]
        asked = dict(
            teacher=digest(teacher.model),
            checkpoint=checkpoint_digest(teacher.checkpoint, model),
            pipeline=digest(steps),
            images=digest([(name, _size(path)) for name, path in zip(images.names, images.paths)]),
            labelled_images=digest([(os.path.basename(path), _size(path)) for path in paths[: len(chosen)]]),
            batch_size=str(self.batch_size),
            choice=digest([self.given, self.ignore, self.classes, mapped.aliases, *map(data.info, chosen)]),
        )
        known = [self._known(asked) if is_main_process() else None]
        broadcast_object_list(known)
        if known[0] is not None:
            return known[0]
        # the detections do not depend on the choice
        identity = {key: value for key, value in asked.items() if key != 'choice'}
        batches = ImageBatches(teacher.cfg, paths, in_batches(paths, self.batch_size), steps)
        job = DetectionJob(model, batches, self.out, identity, self.workers, self.fresh)
        if not job.run(stop):
            return None
        found = job.results()
        content: dict[str, Any] = {}
        if is_main_process():
            results = [_in_classes(found[index], mapped) for index in range(len(paths))]
            content = self._content(data, chosen, images, results, dict(_facts(teacher, asked), floor=FLOOR))
            write_text(self.out, json.dumps(content))
        job.finish()
        return content

    def _find(self, data: SplitImages) -> Folders:
        labelled = [data.path(index) for index in range(len(data))]
        for split in SPLITS:
            try:
                other = None if split == self.split else _with_empty_images(self.cfg, split)
            except (OSError, ValueError):  # the config has no such data, or they are not here
                continue
            labelled += [other.path(index) for index in range(len(other))] if other else []
        return find_images(self.folders, filter(None, labelled))

    def _known(self, asked: dict[str, str]) -> dict[str, Any] | None:
        """The content of the file if it holds what is asked for; None if there is none, or it may be replaced."""
        if self.fresh or not os.path.isfile(self.out):
            return None
        try:
            content = read_labels(self.out, 'the labels')
            identity = content['info']['identity']
        except ValueError:
            content, identity = {}, {}
        other = [key for key in asked if identity.get(key) != asked[key]]
        if not other:
            return content
        if self.replace:
            return None
        raise value_error(
            f'the labels in {self.out!r}',
            f'of the same {", ".join(asked)}',
            f'labels of another {", ".join(other)}',
            'Choose another --work-dir, or delete the file to have it made anew; to train with it as it is, name the '
            'file in place of the folder.',
        )

    def _content(
        self, data: SplitImages, chosen: list[int], images: Folders, results: list, facts: dict[str, Any]
    ) -> dict[str, Any]:
        read = [(one, truth(data, index)) for one, index in zip(results, chosen) if not isinstance(one, str)]
        thresholds = choose_thresholds(self.classes, [one for one, _ in read], [one for _, one in read], self.given)
        own = results[len(chosen) :]
        facts.update(
            image_root=os.path.relpath(images.root, os.path.dirname(os.path.abspath(self.out))),
            labelled_left_out=images.labelled,
            threshold_images=len(read),
        )
        content = coco_content(images.names, own, self.classes, thresholds, self.ignore, facts)
        _check(content, own, ', '.join(self.folders))
        return content


def _with_empty_images(cfg: Config, split: str) -> SplitImages:
    """The images of a split, with those that its filter leaves out because they have no object."""
    cfg = deepcopy(cfg)
    for part in split_parts(cfg, split):
        part.config.pop('filter_cfg', None)
    return SplitImages(cfg, split)


def class_map(classes: Sequence[str], teacher: Teacher, model: Any) -> ClassMap:
    """The map between the data's classes and the teacher's; raises a ``ValueError`` if they share none."""
    names = teacher.classes or getattr(model, 'class_names', None)
    if names is None and any(teacher.cfg.get(f'{split}_dataloader') for split in ('train', 'val')):
        names = class_names(teacher.cfg, 'train' if teacher.cfg.get('train_dataloader') else 'val')
    mapped = ClassMap(classes, names or None, teacher.aliases)
    if mapped.disjoint:
        raise value_error(
            "the teacher's classes",
            'among those of the data by name',
            f'{", ".join(mapped.teacher[:5])} and {", ".join(mapped.student[:5])}',
            'Name what it calls differently: --alias CLASS=NAME_OF_THE_TEACHER.',
        )
    return mapped


def truth(data: SplitImages, index: int) -> Truth:
    """The labelled objects of an image, in pixels of its file."""
    objects = data.info(index).get('instances') or []
    return Truth(
        np.array([one['bbox'] for one in objects], np.float32).reshape(-1, 4),
        np.array([one['bbox_label'] for one in objects], int),
        np.array([one.get('ignore_flag', 0) for one in objects], bool),
    )


def _in_classes(found: dict | str, mapped: ClassMap) -> dict | str:
    """Detections with the labels of the data; those of other classes get ``-1``."""
    if isinstance(found, str) or mapped.same:
        return found
    back = {there: here for here, there in enumerate(mapped.index.tolist()) if there >= 0}
    return dict(found, labels=[back.get(label, -1) for label in found['labels']])


def _check(content: dict[str, Any], results: list[dict | str], folders: str) -> None:
    """Raises a ``ValueError`` if no image could be read, or none has a box."""
    info = content['info']
    if not content['images']:
        name, reason = next(iter(info['unreadable'].items()))
        raise value_error(
            'the unlabelled images', 'readable', f'{len(info["unreadable"])} that are not, {name} first ({reason})'
        )
    if not info['images_with_boxes']:
        scores = [score for one in results if not isinstance(one, str) for score in one['scores']]
        raise value_error(
            f'the teacher to find objects in {folders}; its boxes',
            'above its thresholds',
            f'no such box in {len(content["images"])} images '
            + (f'(the best score is {max(scores)})' if scores else f'(no score reaches {FLOOR})'),
            'Look whether the checkpoint belongs to the config, whether these images are of its kind, and at '
            '--threshold. The detections are kept: call it again with another --threshold.',
        )


def _facts(teacher: Teacher, identity: dict[str, str]) -> dict[str, Any]:
    return dict(
        teacher=teacher.name,
        checkpoint=os.path.basename(teacher.checkpoint),
        checkpoint_sha256=identity['checkpoint'][:PREFIX],
        identity=identity,
        versions=versions(),
    )


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else -1
