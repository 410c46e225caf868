"""Detects objects in many images, on several processes; the job can be stopped, killed and resumed.

Each process adds a line for each batch to a file of its own, ``<output>.partial.<rank>``. The next start reads
all lines, whatever the number of processes; a last line that was cut off counts as not written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import barrier, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.model import BaseModel
from pycocotools import mask as mask_utils

from kd_ext.data.progress import ImageProgress
from kd_ext.data.regions import stream_samples
from kd_ext.engine.whole_files import write_text
from kd_ext.errors import value_error
from kd_ext.pseudo_labels.images import ImageBatches

FLOOR = 0.05  # detections below this score are not kept
REMEDY = 'Go on with the same arguments as before, or start anew with --fresh, which deletes it.'


class DetectionJob:
    """Runs a detector over batches of images.

    The result does not depend on interruptions, and on the number of processes only as far as the detector's
    arithmetic does.

    Args:
        model: In eval mode.
        data: The images.
        out: File that the result will go to; partial results lie beside it.
        identity: What the detections depend on. Partial results of another identity are refused.
        workers: Data workers of each process.
        fresh: Delete partial results instead of resuming from them.
    """

    def __init__(
        self,
        model: BaseModel,
        data: ImageBatches,
        out: str | Path,
        identity: dict[str, str],
        workers: int = 0,
        fresh: bool = False,
    ) -> None:
        self.model, self.data, self.out, self.identity = model, data, Path(out), identity
        self.workers, self.fresh = workers, fresh

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Detects in the images that are left; whether this process has finished its part.

        Args:
            stop: Asked after each batch; True stops the job.
        """
        left = self._start()
        mine = left[get_rank() :: get_world_size()]
        before = len(self.data.paths) - sum(len(self.data.batches[index]) for index in left)
        # the merged file is rank 0's; the others begin one
        with open(self._path(get_rank()), 'a') as file, ImageProgress('labels', len(self.data.paths), before) as bar:
            if not is_main_process():
                file.write(json.dumps(self.identity) + '\n')
            try:
                for index, batch in stream_samples(self.data, mine, self.workers) if not stop() else ():
                    file.write(json.dumps([index, self._detect(batch)]) + '\n')
                    file.flush()
                    for _ in batch:
                        bar.step()
                    if stop():
                        return index == mine[-1]
            except RuntimeError as error:
                # a signal to all processes ends the data workers too
                if 'exited unexpectedly' not in str(error) or not stop():
                    raise
                return False
        return not mine or not stop()

    def _start(self) -> list[int]:
        """Batches that all processes still have to do; merges what was reached into the file of rank 0."""
        left: list = [None]
        if is_main_process():
            files = self._files()
            done = {} if self.fresh else dict(line for path in files for line in self._read(path))
            lines = [json.dumps(self.identity), *(json.dumps([index, done[index]]) for index in sorted(done))]
            write_text(self._path(0), '\n'.join(lines) + '\n')
            for path in files:
                if path != self._path(0):
                    path.unlink()
            left = [[index for index in range(len(self.data)) if index not in done]]
        broadcast_object_list(left)
        return left[0]

    def _detect(self, batch: list[tuple[int, Any]]) -> list[list]:
        """``[image, detections or text of an error]`` of each image of a batch."""
        samples = [sample for _, sample in batch if not isinstance(sample, str)]
        with torch.no_grad():
            results = iter(self.model.test_step(pseudo_collate(samples)) if samples else ())
        return [[image, sample if isinstance(sample, str) else detections(next(results))] for image, sample in batch]

    def results(self) -> dict[int, Any]:
        """Detections, or the text of an error, by image, on rank 0 alone; every process has to call it."""
        barrier()
        if not is_main_process():
            return {}
        found = [line for path in self._files() for line in self._read(path)]
        return {image: result for _, batch in found for image, result in batch}

    def finish(self) -> None:
        """Deletes the partial results; every process has to call it, after the output is written."""
        barrier()
        for path in self._files() if is_main_process() else ():
            path.unlink()

    def _path(self, rank: int) -> Path:
        return self.out.with_name(f'{self.out.name}.partial.{rank}')

    def _files(self) -> list[Path]:
        form = re.compile(re.escape(self.out.name) + r'\.partial\.\d+')
        return sorted(path for path in self.out.parent.iterdir() if form.fullmatch(path.name))

    def _read(self, path: Path) -> Iterator[tuple[int, list]]:
        """The lines of a partial file; raises a ``ValueError`` if it is of another identity."""
        lines = path.read_text().split('\n')[:-1]  # a line that was cut off has no end
        if not lines:
            return
        try:
            identity, *batches = map(json.loads, lines)
        except ValueError as error:
            raise value_error(
                'the partial result', 'one that can be read', f'{str(path)!r} ({error})', REMEDY
            ) from error
        other = [key for key in {**self.identity, **identity} if self.identity.get(key) != identity.get(key)]
        if other:
            raise value_error(
                f'the partial result {str(path)!r}',
                f'of the same {", ".join(self.identity)}',
                f'one of another {", ".join(other)}',
                REMEDY,
            )
        yield from ((index, batch) for index, batch in batches)


def detections(sample: Any) -> dict[str, list]:
    """The detections of a ``DetDataSample`` with a score of at least ``FLOOR`` and sides of a pixel, as JSON
    holds them.

    Boxes (x1, y1, x2, y2) are in pixels of the image file, rounded to 0.01; scores are rounded to 0.0001. Masks,
    where the detector has them, are COCO's compressed RLE.
    """
    found = sample.pred_instances.cpu()
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    # CocoDataset drops boxes below a pixel
    boxes, scores = boxes.double().round(decimals=2), found.scores.double().round(decimals=4)
    kept = (scores >= FLOOR) & (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    result = dict(
        size=list(sample.ori_shape[:2]),
        boxes=boxes[kept].tolist(),
        labels=found.labels[kept].tolist(),
        scores=scores[kept].tolist(),
    )
    if 'masks' in found:
        masks = np.asarray(found.masks[kept]).astype(np.uint8).reshape(-1, *result['size'])
        rles = [mask_utils.encode(np.asfortranarray(mask)) for mask in masks]
        result['masks'] = [dict(size=list(rle['size']), counts=rle['counts'].decode('ascii')) for rle in rles]
    return result
