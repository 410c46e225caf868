"""Writes a generated detection set: COCO JSON with masks and VOC XML.

    python -m demo.make_shapes_dataset data/shapes --train 1000 --val 250

Layout: one copy of the images serves both formats.

    OUT/annotations/instances_{train,val,tuning}.json   COCO, boxes and RLE masks
    OUT/VOC2007/JPEGImages/*.jpg
    OUT/VOC2007/Annotations/*.xml
    OUT/VOC2007/ImageSets/Main/{train,val,tuning}.txt
    OUT/shapes.json                                     how it was made

``--tuning`` adds a third split, on which settings can be chosen without a look at ``val``. ``--objects letters``
draws letters and digits in place of shapes. The same seed gives the same scenes, and image i of a split does not
depend on how many images the split has.
"""

import argparse
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from rich.progress import track

from demo.letters import LETTERS
from demo.scenes import SHAPES, render_scene

SPLITS = ('train', 'val', 'tuning')
KINDS = dict(shapes=SHAPES, letters=LETTERS)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--train', type=int, default=1000, help='training images (default: %(default)s)')
    parser.add_argument('--val', type=int, default=250, help='validation images (default: %(default)s)')
    parser.add_argument('--tuning', type=int, default=0, help='images of a third split (default: %(default)s)')
    parser.add_argument('--objects', choices=KINDS, default='shapes', help='what is drawn (default: %(default)s)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(128, 128),
        metavar=('HEIGHT', 'WIDTH'),
        help='image size in pixels (default: 128 128)',
    )
    parser.add_argument('--max-objects', type=int, default=6, help='objects painted per image (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    for name in ('train', 'val', 'max_objects'):
        if getattr(args, name) < 1:
            parser.error(f'Expected --{name.replace("_", "-")} to be at least 1, but got {getattr(args, name)}.')
    if args.tuning < 0:
        parser.error(f'Expected --tuning to be at least 0, but got {args.tuning}.')
    if min(args.size) < 32:
        parser.error(f'Expected --size to be at least 32 32, but got {args.size[0]} {args.size[1]}.')
    return args


def coco_annotation(scene, index, image_id, annotation_id):
    x1, y1, x2, y2 = scene.boxes[index].tolist()
    mask = np.asfortranarray(scene.masks[index].astype(np.uint8))
    rle = mask_utils.encode(mask)
    return dict(
        id=annotation_id,
        image_id=image_id,
        iscrowd=0,
        category_id=int(scene.labels[index]) + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=int(scene.masks[index].sum()),
        segmentation=dict(size=rle['size'], counts=rle['counts'].decode('ascii')),
    )


def voc_xml(scene, file_name, classes):
    root = ElementTree.Element('annotation')

    def add(parent, tag, text=''):
        node = ElementTree.SubElement(parent, tag)
        node.text = str(text)
        return node

    height, width, depth = scene.image.shape
    add(root, 'filename', file_name)
    size = add(root, 'size')
    for tag, value in zip(('width', 'height', 'depth'), (width, height, depth)):
        add(size, tag, value)
    for label, box in zip(scene.labels, scene.boxes):
        node = add(root, 'object')
        add(node, 'name', classes[label])
        add(node, 'difficult', 0)
        corners = add(node, 'bndbox')
        # VOC counts pixels from 1 and includes the last one
        x1, y1, x2, y2 = (int(v) for v in box)
        for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), (x1 + 1, y1 + 1, x2, y2)):
            add(corners, tag, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode')


def write_split(out, split, count, args):
    voc, kind = out / 'VOC2007', KINDS[args.objects]
    images, annotations, names = [], [], []
    split_key = SPLITS.index(split)
    for index in track(range(count), f'{split:>5} images'):
        rng = np.random.default_rng((args.seed, split_key, index))
        scene = render_scene(rng, tuple(args.size), args.max_objects, kind)
        name = f'{split}_{index:05d}'
        _, jpeg = cv2.imencode('.jpg', scene.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        (voc / 'JPEGImages' / f'{name}.jpg').write_bytes(jpeg.tobytes())
        (voc / 'Annotations' / f'{name}.xml').write_text(voc_xml(scene, f'{name}.jpg', kind.classes))
        height, width = scene.image.shape[:2]
        images.append(dict(id=index, file_name=f'{name}.jpg', height=height, width=width))
        for item in range(len(scene.labels)):
            annotations.append(coco_annotation(scene, item, index, len(annotations) + 1))
        names.append(name)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(kind.classes)]
    (out / 'annotations' / f'instances_{split}.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    (voc / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(names) + '\n')
    return len(annotations)


def main():
    args = parse_args()
    recipe = dict(train=args.train, val=args.val, size=list(args.size), max_objects=args.max_objects, seed=args.seed)
    # only where they are used: a data set of an earlier version is not made again
    recipe.update({key: value for key in ('tuning', 'objects') if (value := getattr(args, key)) not in (0, 'shapes')})
    marker = args.out / 'shapes.json'
    if marker.exists() and json.loads(marker.read_text()) == recipe:
        print(f'{args.out} holds this data set already')
        return 0
    marker.unlink(missing_ok=True)  # absent while the set is incomplete
    for part in ('annotations', 'VOC2007/JPEGImages', 'VOC2007/Annotations', 'VOC2007/ImageSets/Main'):
        (args.out / part).mkdir(parents=True, exist_ok=True)
    for split in SPLITS if args.tuning else SPLITS[:2]:
        boxes = write_split(args.out, split, getattr(args, split), args)
        print(f'{split}: {getattr(args, split)} images, {boxes} boxes')
    marker.write_text(json.dumps(recipe))
    return 0


if __name__ == '__main__':
    sys.exit(main())
