"""The same images under ground truth and under each detector."""

from pathlib import Path

import matplotlib

from kd_ext.engine.whole_files import replacing

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

THRESHOLD = 0.2


def detections(config, checkpoint, paths):
    """Boxes, labels and scores by stock mmdet: list of three arrays."""
    from mmcv.ops import nms
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(config, checkpoint, device='cpu', palette='random')
    found = []
    for path in paths:
        instances = inference_detector(model, str(path)).pred_instances
        instances = instances[instances.scores > THRESHOLD]
        if len(instances):  # one label a place, the likeliest: it is drawn
            _, kept = nms(instances.bboxes, instances.scores, 0.6)
            instances = instances[kept]
        instances = instances.numpy()
        found.append((instances.bboxes, instances.labels, instances.scores))
    return found


def ground_truth(annotations, image_ids):
    """Boxes and labels of a COCO file: list of three arrays."""
    from pycocotools.coco import COCO

    coco = COCO(annotations)
    found = []
    for image_id in image_ids:
        items = coco.loadAnns(coco.getAnnIds(image_id))
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (item['bbox'] for item in items)]
        labels = [item['category_id'] - 1 for item in items]
        found.append((boxes, labels, [None] * len(boxes)))
    return found


def draw(paths, columns, classes, out):
    """Writes a grid: a row for each image, a column for each detector.

    Args:
        paths (list[Path]): Images.
        columns (dict[str, list]): By title, for each image (boxes, labels, scores).
        classes (Sequence[str]): Names for the labels.
        out (Path): PNG to write.
    """
    colours = plt.get_cmap('tab10').colors
    figure, axes = plt.subplots(
        len(paths), len(columns), squeeze=False, figsize=(2.9 * len(columns), 2.9 * len(paths))
    )
    for row, path in zip(range(len(paths)), paths):
        image = plt.imread(path)
        for column, (title, found) in enumerate(columns.items()):
            axis = axes[row][column]
            axis.imshow(image)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title, fontsize=11)
            for (x1, y1, x2, y2), label, score in zip(*found[row]):
                colour = colours[int(label) % len(colours)]
                axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, lw=1.6))
                text = classes[int(label)]
                if score is not None:
                    text += f' {score:.2f}'
                axis.text(
                    x1, max(y1 - 2, 6), text, fontsize=6, color='white', bbox=dict(facecolor=colour, pad=0.6, lw=0)
                )
    figure.tight_layout(pad=0.4)
    with replacing(out) as part:
        figure.savefig(part, format=Path(out).suffix[1:], dpi=70)
    plt.close(figure)
