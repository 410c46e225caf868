"""Pictures of images with the labels that a teacher gave them."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.structures import InstanceData

from kd_ext.data.images import spread
from kd_ext.pseudo_labels.coco_file import image_root

SAMPLE = 16


def draw_labels(content: dict[str, Any], path: str | Path, folder: str | Path, count: int = SAMPLE) -> list[Path]:
    """Draws the labels of images that are spread over a file: labels in colour with their scores, regions that are
    ignored in grey.

    Args:
        content: Of the file of labels.
        path: The file.
        folder: Where the pictures go.
        count: Of pictures.

    Returns:
        Their paths.
    """
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer
    from pycocotools import mask as mask_utils

    found = defaultdict(list)
    for one in content['annotations']:
        found[one['image_id']].append(one)
    visualizer = DetLocalVisualizer(name='pseudo_labels')
    visualizer.dataset_meta = dict(classes=[one['name'] for one in content['categories']], palette='random')
    root, written = image_root(content, path), []
    for index in spread(len(content['images']), count):
        image = content['images'][index]
        pixels = mmcv.imread(str(Path(root) / image['file_name']), channel_order='rgb')
        parts = found[image['id']]
        boxes = np.array([one['bbox'] for one in parts]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        crowd = np.array([one['iscrowd'] for one in parts], bool)
        warnings.filterwarnings('ignore', '.*out of bounds')  # of boxes that end at the border
        visualizer.set_image(pixels)
        if crowd.any():
            visualizer.draw_bboxes(boxes[crowd], edge_colors='grey', line_styles='--', line_widths=1)
            pixels = visualizer.get_image()
        kept = [one for one in parts if not one['iscrowd']]
        instances = InstanceData(
            bboxes=torch.tensor(boxes[~crowd], dtype=torch.float32),
            labels=torch.tensor([one['category_id'] - 1 for one in kept], dtype=torch.long),
            scores=torch.tensor([one['score'] for one in kept]),
        )
        if kept and kept[0]['segmentation']:
            instances.masks = np.stack([mask_utils.decode(one['segmentation']) for one in kept]).astype(bool)
        target = Path(folder) / f'{image["id"]:06d}_{Path(image["file_name"]).stem}.jpg'
        visualizer.add_datasample(
            'labels',
            pixels,
            DetDataSample(pred_instances=instances),
            draw_gt=False,
            out_file=str(target),
            pred_score_thr=0.0,
        )
        written.append(target)
    return written
