"""Class means once more: images, labels and assignment by hand, in loops."""

import json
from xml.etree import ElementTree

import cv2
import mmcv
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData

from tests.helpers import short_trainings as training
from tests.helpers.tiny_detectors import build

MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


def files(folder, shapes, model, name='teacher', **changes):
    """A config and a checkpoint of its model with random weights: paths."""
    cfg = training.config(shapes, folder / 'work', 'random', **changes)
    cfg.model = model
    cfg.dump(folder / f'{name}.py')
    torch.manual_seed(0)
    torch.save(dict(state_dict=build(model).state_dict()), folder / f'{name}.pth')
    return folder / f'{name}.py', folder / f'{name}.pth'


def load(model, checkpoint):
    detector = build(model)
    detector.load_state_dict(torch.load(checkpoint)['state_dict'])
    return detector.eval()


def picture(path, scale=None):
    """(1, 3, H, W) as the network sees it, its size, and the scaling."""
    image, factor = cv2.imread(str(path)), 1.0
    if scale is not None:
        image, factor = mmcv.imrescale(image, scale, return_scale=True)
    pixels = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)
    pixels = (pixels - MEAN) / STD
    height, width = image.shape[:2]
    padded = pixels.new_zeros(1, 3, -height % 32 + height, -width % 32 + width)
    padded[0, :, :height, :width] = pixels
    return padded, (height, width), factor


def coco_images(root, split='train'):
    """Path, boxes and labels of each image of the generated data set."""
    content = json.loads((root / f'annotations/instances_{split}.json').read_text())
    for image in content['images']:
        found = [one for one in content['annotations'] if one['image_id'] == image['id']]
        boxes = torch.tensor([one['bbox'] for one in found]).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        yield (
            root / 'VOC2007/JPEGImages' / image['file_name'],
            boxes,
            torch.tensor([one['category_id'] - 1 for one in found]),
        )


def voc_images(root, split, classes):
    """The same of a data set in VOC layout, all that has boxes."""
    folder = root / 'VOC2007'
    names = (folder / f'ImageSets/Main/{split}.txt').read_text().split()
    for name in names:
        tree = ElementTree.parse(folder / f'Annotations/{name}.xml')
        boxes, labels = [], []
        for thing in tree.iter('object'):
            box = [float(thing.find(f'bndbox/{side}').text) - 1 for side in ('xmin', 'ymin', 'xmax', 'ymax')]
            if min(box[2] - box[0], box[3] - box[1]) >= 2:
                boxes.append(box)
                labels.append(classes.index(thing.find('name').text))
        yield (folder / f'JPEGImages/{name}.jpg', torch.tensor(boxes), torch.tensor(labels))


@torch.no_grad()
def roi_regions(model, inputs, size, boxes, labels, seed):
    """Embeddings and labels of the proposals that Faster R-CNN samples."""
    head = model.roi_head
    meta = dict(img_shape=size, batch_input_shape=tuple(inputs.shape[2:]), pad_shape=tuple(inputs.shape[2:]))
    objects = DetDataSample(metainfo=meta, gt_instances=InstanceData(bboxes=boxes, labels=torch.zeros_like(labels)))
    torch.manual_seed(seed)
    maps = model.extract_feat(inputs)
    proposals = model.rpn_head.loss_and_predict(maps, [objects], proposal_cfg=model.train_cfg.rpn_proposal)[1][0]
    proposals.priors = proposals.pop('bboxes')
    truth = InstanceData(bboxes=boxes, labels=labels)
    sampled = head.bbox_sampler.sample(head.bbox_assigner.assign(proposals, truth, None), proposals, truth)
    rows = head.bbox_roi_extractor(maps[:4], bbox2roi([sampled.priors])).flatten(1)
    for layer in head.bbox_head.shared_fcs:
        rows = layer(rows).relu()
    background = labels.new_full((len(sampled.neg_priors),), head.bbox_head.num_classes)
    return rows, torch.cat([sampled.pos_gt_labels, background])


@torch.no_grad()
def fcos_regions(model, inputs, boxes, labels):
    """Embeddings and labels of the points inside of boxes, of FCOS."""
    head, rows, found = model.bbox_head, [], []
    for level, maps in enumerate(model.extract_feat(inputs)):
        for layer in head.cls_convs:
            maps = layer(maps)
        stride, (low, high) = head.strides[level], head.regress_ranges[level]
        for y in range(maps.shape[2]):
            for x in range(maps.shape[3]):
                label = _label((x + 0.5) * stride, (y + 0.5) * stride, 1.5 * stride, low, high, boxes, labels)
                if label is not None:
                    rows.append(maps[0, :, y, x])
                    found.append(label)
    return torch.stack(rows), torch.tensor(found)


def _label(x, y, radius, low, high, boxes, labels):
    best = None
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist()):
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        inside = max(x1, cx - radius) < x < min(x2, cx + radius) and max(y1, cy - radius) < y < min(y2, cy + radius)
        reach = max(x - x1, y - y1, x2 - x, y2 - y)
        area = (x2 - x1) * (y2 - y1)
        if inside and low <= reach <= high and (best is None or area < best[0]):
            best = area, label
    return best and best[1]


def means(parts, rows):
    """Class means and counts of embeddings and labels by image."""
    embeddings = torch.cat([part[0] for part in parts]).double()
    labels = torch.cat([part[1] for part in parts])
    groups = [embeddings[labels == row] for row in range(rows)]
    return (
        torch.stack([group.mean(0) if len(group) else embeddings.new_zeros(embeddings.shape[1]) for group in groups]),
        torch.tensor([len(group) for group in groups]),
    )
