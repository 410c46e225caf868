"""The images that a report measures on, and each model's detections there, in COCO's form."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from kd_ext.data.images import SplitImages, spread
from kd_ext.data.labelled import class_names
from kd_ext.data.progress import ImageProgress
from kd_ext.data.regions import stream_samples, undisturbed
from kd_ext.engine.whole_files import write_text
from kd_ext.errors import value_error
from kd_ext.teachers.identity import digest

FOLDER = 'report'  # in a work dir, for what is kept between reports


class TestImages:
    """Images of a split with their ground truth.

    Args:
        cfg: Config with dataloaders.
        split: ``'val'`` or ``'test'``.
        max_images: No more than this, spread over the split; None takes all.

    Attributes:
        images: The :class:`SplitImages`.
        indices: Of the images used.
        classes: Names of the classes.
        truth: COCO data set of the images used. Its areas are those of the annotation file, if the config's metric
            reads one, otherwise those of the boxes: as mmdet's ``CocoMetric`` takes them.
        digest: Identifies images and ground truth.

    Raises:
        ValueError: The split does not exist, has no image or no object.
    """

    def __init__(self, cfg: Config, split: str, max_images: int | None = None) -> None:
        self.images = SplitImages(cfg, split)
        self.indices = spread(len(self.images), max_images)
        self.classes = class_names(cfg, split)
        self.batch = (cfg.get(f'{split}_dataloader') or {}).get('batch_size') or 1
        evaluators = cfg.get(f'{split}_evaluator') or {}
        evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
        file = next((one['ann_file'] for one in evaluators if one.get('ann_file')), None)
        self.truth = self._truth(file)
        if not self.truth['annotations']:
            raise value_error(
                f'{split}_dataloader',
                'a data set with annotated images',
                f'{len(self.indices)} images without an object',
                'Name another split, or a config with such data: --split, --data.',
            )
        self.digest = digest(self.truth)

    def _truth(self, file: str | None) -> dict:
        parts = self.images.parts
        ids = getattr(parts[0], 'cat_ids', None) if len(parts) == 1 else None
        numbers = list(ids) if ids else list(range(1, len(self.classes) + 1))
        self.labels = dict(enumerate(numbers))
        infos = [part.get_data_info(inside) for part, inside in map(self.images._find, self.indices)]
        paths = [os.path.abspath(info['img_path']) for info in infos]
        self.paths = paths
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
        self.ids = [info['img_id'] if ids and file else index for index, info in zip(self.indices, infos)]
        images = [
            dict(id=number, file_name=os.path.relpath(path, root), width=info['width'], height=info['height'])
            for number, path, info in zip(self.ids, paths, infos)
        ]
        categories = [dict(id=number, name=name) for number, name in zip(numbers, self.classes)]
        if ids and file:
            items = json.loads(Path(file).read_text())['annotations']
            wanted, known = set(self.ids), set(numbers)
            items = [item for item in items if item['image_id'] in wanted and item['category_id'] in known]
            keys = ('image_id', 'category_id', 'bbox', 'area', 'iscrowd')
            items = [{key: item.get(key, 0) for key in keys} for item in items]
        else:
            items = [
                dict(image_id=number, category_id=self.labels[one['bbox_label']], **_box(one))
                for number, info in zip(self.ids, infos)
                for one in info['instances']
            ]
        annotations = [dict(item, id=number) for number, item in enumerate(items, 1)]
        return dict(images=images, categories=categories, annotations=annotations)

    def path(self, number: Any) -> str:
        """The file of an image, by its id in ``truth``."""
        return self.paths[self.ids.index(number)]

    @torch.no_grad()
    def detect(self, model: Any, labels: Sequence[int] | None = None, title: str | None = None) -> list[dict]:
        """The detections of a model as COCO results.

        Args:
            model: A detector.
            labels: Our label of each of its classes, -1 where we have no such class; None if both are the same.
            title: Shown with the progress.
        """
        results: list[dict] = []
        with undisturbed(model), ImageProgress(title, len(self.indices)) as progress:
            chunk: list = []
            for position, (_, sample) in enumerate(stream_samples(self.images, self.indices), 1):
                chunk.append(sample)
                if len(chunk) < self.batch and position < len(self.indices):
                    continue
                batch = {key: [one[key] for one in chunk] for key in chunk[0]}
                outputs = model(**model.data_preprocessor(batch, False), mode='predict')
                for number, output in zip(self.ids[position - len(chunk) : position], outputs):
                    results += self.results(number, output.pred_instances.cpu(), labels)
                    progress.step()
                chunk = []
        return results

    def results(self, number: Any, found: Any, labels: Sequence[int] | None = None) -> list[dict]:
        """COCO results of the predicted instances of an image; ``labels`` as in :meth:`detect`."""
        own = [int(label) if labels is None else labels[int(label)] for label in found.labels]
        boxes = found.bboxes.tensor if hasattr(found.bboxes, 'tensor') else found.bboxes
        return [
            dict(
                image_id=number,
                category_id=self.labels[label],
                bbox=[round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                score=round(float(score), 6),
            )
            for label, score, (x1, y1, x2, y2) in zip(own, found.scores.tolist(), boxes.tolist())
            if label in self.labels
        ]

    def kept(self, folder: Path, key: Any, detect: Any) -> tuple[list[dict], str]:
        """The detections of a model, from the file of an earlier report if that is of the same model and images.

        Args:
            folder: The work dir that keeps them.
            key: Identifies the model.
            detect: Makes them.

        Returns:
            The detections, and a sentence if they could not be kept.
        """
        path = folder / FOLDER / f'detections_{digest([key, self.digest, self.indices])[:16]}.json'
        try:
            return json.loads(path.read_text()), ''
        except (OSError, ValueError):
            results = detect()
        try:
            path.parent.mkdir(exist_ok=True)
            write_text(path, json.dumps(results))
        except (OSError, ValueError) as error:
            return results, f'Its detections could not be kept for the next report ({error}).'
        return results, ''


def _box(one: dict) -> dict:
    x1, y1, x2, y2 = map(float, one['bbox'])
    width, height = x2 - x1, y2 - y1
    return dict(bbox=[x1, y1, width, height], area=width * height, iscrowd=int(one.get('ignore_flag', 0)))
