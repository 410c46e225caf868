"""The same scenes under ground truth and under each detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from pycocotools.coco import COCO
from pycocotools.mask import iou

from kd_ext.engine.whole_files import replacing

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.patches import Patch, Rectangle

PICTURED, OBJECTS = 5, 4
RULE = f'the first {PICTURED} test scenes with at least {OBJECTS} objects, chosen before any detector ran'
THRESHOLD = 0.2  # for every detector; near the best F1 of each on scenes that are not drawn
SAME_PLACE = 0.6  # of boxes that overlap further, the likeliest is drawn, whatever its class
FOUND = 0.5  # intersection over union from which a box of the right class finds an object
DASHES = (0, (2, 2))
INK, GREY = '#1a1a1a', '#5f6368'
COLOURS = ('#1f77ff', '#ff9500', '#2fb344', '#e5232b', '#b04de0', '#00c8d7', '#f7d000', '#ff6fae', '#8c564b')


@dataclass(frozen=True)
class Boxes:
    """What is in one scene: ``boxes`` (N, 4) x1 y1 x2 y2 in pixels, ``labels`` and ``scores`` (N,)."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


def choose(coco: COCO) -> list[int]:
    """Ids of the scenes that are drawn, in their order in the file: see ``RULE``."""
    return [one for one in sorted(coco.getImgIds()) if len(coco.getAnnIds(one)) >= OBJECTS][:PICTURED]


def ground_truth(coco: COCO, image_id: int) -> Boxes:
    """The labelled objects of a scene."""
    items = coco.loadAnns(coco.getAnnIds(image_id))
    boxes = np.array([item['bbox'] for item in items], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Boxes(boxes, np.array([item['category_id'] - 1 for item in items], int))


def detections(config: Path, checkpoint: Path, paths: Iterable[Path]) -> list[Boxes]:
    """What a detector finds in each image with a score above ``THRESHOLD``, by stock mmdet."""
    from mmcv.ops import nms
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(str(config), str(checkpoint), device='cpu', palette='random')
    found = []
    for path in paths:
        instances = inference_detector(model, str(path)).pred_instances
        instances = instances[instances.scores > THRESHOLD]
        if len(instances):
            instances = instances[nms(instances.bboxes, instances.scores, SAME_PLACE)[1]]
        instances = instances.numpy()
        found.append(Boxes(instances.bboxes, instances.labels, instances.scores))
    return found


def hits(found: Boxes, truth: Boxes) -> np.ndarray:
    """Whether each box finds an object, which no likelier box has found: (N,) bool."""
    right, free = np.zeros(len(found.labels), bool), np.ones(len(truth.labels), bool)
    if not len(right) or not len(free):
        return right
    corners = [np.concatenate([one[:, :2], one[:, 2:] - one[:, :2]], 1) for one in (found.boxes, truth.boxes)]
    overlaps = iou(corners[0].astype(float), corners[1].astype(float), [0] * len(free))
    for index in np.argsort(-found.scores):
        fitting = overlaps[index] * (free & (truth.labels == found.labels[index]))
        if fitting.max() >= FOUND:
            right[index] = True
            free[fitting.argmax()] = False
    return right


def draw(annotations: Path, folder: Path, detectors: Mapping[str, tuple[Path, Path]], out: Path) -> None:
    """Writes a grid: a row for ground truth and each detector, a column for each scene.

    Args:
        annotations (Path): COCO file of the test scenes.
        folder (Path): Of their images.
        detectors (Mapping[str, tuple[Path, Path]]): Config and checkpoint by title.
        out (Path): PNG to write.
    """
    coco = COCO(str(annotations))
    chosen = choose(coco)
    paths = [folder / one['file_name'] for one in coco.loadImgs(chosen)]
    truth = [ground_truth(coco, one) for one in chosen]
    found = {title: detections(*files, paths) for title, files in detectors.items()}
    draw_grid(paths, truth, found, [one['name'] for one in coco.loadCats(coco.getCatIds())], out)


def draw_grid(
    paths: Sequence[Path],
    truth: Sequence[Boxes],
    found: Mapping[str, Sequence[Boxes]],
    classes: Sequence[str],
    out: Path,
) -> None:
    """Draws boxes that are known already; arguments as for :func:`draw`, boxes by scene."""
    colours = [COLOURS[one % len(COLOURS)] for one in range(len(classes))]
    rows = {'ground truth': truth, **found}
    total = sum(len(one.labels) for one in truth)
    side, left, top, bottom = 2.1, 1.75, 0.08, 0.98
    width, height = left + side * len(paths), top + side * len(rows) + bottom
    figure, axes = plt.subplots(len(rows), len(paths), squeeze=False, figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - 0.08 / width, 1 - top / height, wspace=0.04, hspace=0.04)
    for line, (title, scenes) in zip(axes, rows.items()):
        count = wrong = 0
        for axis, path, one, labelled in zip(line, paths, scenes, truth):
            axis.imshow(plt.imread(path), interpolation='lanczos')
            axis.set_axis_off()
            right = hits(one, labelled) if one.scores is not None else np.ones(len(one.labels), bool)
            count, wrong = count + right.sum(), wrong + (~right).sum()
            for box, label, fits in zip(one.boxes, one.labels, right):
                draw_box(axis, box, colours[label], fits)
        middle = line[0].get_position()
        place = dict(x=0.1 / width, ha='left', color=INK)
        y, step = (middle.y0 + middle.y1) / 2, 0.2 / height
        text = f'{total} objects' if title == 'ground truth' else f'{count} of {total} found\n{wrong} wrong'
        figure.text(y=y + step / 2, s=title.replace(' + ', '\n+ '), fontsize=11, weight='bold', va='bottom', **place)
        figure.text(y=y, s=text, fontsize=10, va='top', linespacing=1.5, **{**place, 'color': GREY})
    handles = [Patch(facecolor='none', edgecolor=c, lw=2, label=name) for name, c in zip(classes, colours)]
    handles.append(Patch(facecolor='none', edgecolor=INK, lw=2, ls=DASHES, label='wrong class or place'))
    anchor = dict(loc='lower left', bbox_to_anchor=(left / width, 0.6 / height), borderaxespad=0)
    figure.legend(handles=handles, ncols=len(handles), fontsize=9, frameon=False, handlelength=1.4, **anchor)
    caption = (
        f'{RULE[0].upper()}{RULE[1:]}. Boxes scored above {THRESHOLD} are drawn, for every detector alike.\n'
        f'Found: a box of the right class with an intersection over union of at least {FOUND}.'
    )
    figure.text(left / width, 0.12 / height, caption, fontsize=9, color=GREY, ha='left', va='bottom', linespacing=1.5)
    with replacing(out) as part:
        figure.savefig(part, format=Path(out).suffix[1:], dpi=100)
    plt.close(figure)


def draw_box(axis: plt.Axes, box: np.ndarray, colour: str, fits: bool) -> None:
    """Draws a box on a rim, so that it is seen on any paint; dashed if it finds nothing."""
    corner, size = box[:2] - 0.5, box[2:] - box[:2]
    axis.add_patch(Rectangle(corner, *size, fill=False, color='white' if fits else INK, lw=3.4, alpha=0.85))
    axis.add_patch(Rectangle(corner, *size, fill=False, color=colour, lw=1.9, ls='-' if fits else DASHES))
