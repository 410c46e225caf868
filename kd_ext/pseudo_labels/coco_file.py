"""The file of a teacher's labels: COCO, with the score of each box, and how it was made in ``info``.

A box with a score of at least its class's threshold is an object. One between ``ignore`` times the threshold and
the threshold is a crowd region (``iscrowd``), which mmdet hands to the heads as a region to ignore.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Sequence

from rich.console import Console
from rich.table import Table

from kd_ext.errors import file_error, value_error
from kd_ext.pseudo_labels.thresholds import Threshold

SCORE = 'score'  # key of an annotation
KIND = 'labels of a teacher, by kd_ext pseudo-label'


def coco_content(
    names: Sequence[str],
    results: Sequence[dict | str],
    classes: Sequence[str],
    thresholds: dict[str, Threshold],
    ignore: float,
    info: dict[str, Any],
) -> dict[str, Any]:
    """The content of the file, with the counts of the log table in ``info``.

    Args:
        names: File names of the images.
        results: Detections of each, with labels that index ``classes`` (negative: of none); or the text of the
            error of an unreadable image, which is left out.
        classes: Names; ids of categories count from 1.
        thresholds: By class.
        ignore: See above; 1 makes no regions.
        info: Facts to add.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    unreadable: dict[str, str] = {}
    rows = {name: dict(detected=0, boxes=0, ignored=0) for name in classes}
    limits = [(one.score, ignore * one.score) for one in (thresholds[name] for name in classes)]
    labelled = set()
    for number, (name, found) in enumerate(zip(names, results), 1):
        if isinstance(found, str):
            unreadable[name] = found
            continue
        height, width = found['size']
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for index, (box, label, score) in enumerate(zip(found['boxes'], found['labels'], found['scores'])):
            if label < 0:
                continue
            row = rows[classes[label]]
            row['detected'] += 1
            threshold, low = limits[label]
            if score < low:
                continue
            crowd = score < threshold
            row['ignored' if crowd else 'boxes'] += 1
            if not crowd:
                labelled.add(number)
            x1, y1, x2, y2 = box
            size = [round(x2 - x1, 2), round(y2 - y1, 2)]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label + 1,
                    bbox=[x1, y1, *size],
                    area=round(size[0] * size[1], 2),
                    iscrowd=int(crowd),
                    score=score,
                    segmentation=found['masks'][index] if 'masks' in found else [],
                )
            )
    info = dict(
        description=KIND,
        **info,
        thresholds={name: thresholds[name]._asdict() for name in classes},
        ignore=ignore,
        counts=rows,
        images=len(images),
        images_with_boxes=len(labelled),
        unreadable=unreadable,
    )
    categories = [dict(id=index, name=name) for index, name in enumerate(classes, 1)]
    return dict(info=info, licenses=[], images=images, annotations=annotations, categories=categories)


def read_labels(path: str | Path, key: str = '--unlabelled') -> dict[str, Any]:
    """The content of a file of :func:`coco_content`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another kind of file.
    """
    remedy = 'Make it with kd_ext pseudo-label CONFIG CHECKPOINT DIR --out FILE.'
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise file_error(key, 'a folder of images or a file of their labels', repr(str(path)), remedy) from error
    except ValueError as error:
        raise value_error(key, 'a file of labels', f'{str(path)!r} ({error})', remedy) from error
    info = content.get('info') if isinstance(content, dict) else None
    if not isinstance(info, dict) or info.get('description') != KIND:
        raise value_error(key, 'a file of labels by a teacher', f'{str(path)!r}, which is none', remedy)
    return content


def image_root(content: dict[str, Any], path: str | Path) -> str:
    """The folder that the file names of ``content`` start from; it is stored relative to the file."""
    return str((Path(path).resolve().parent / content['info']['image_root']).resolve())


def labels_table(info: dict[str, Any]) -> Table:
    """Boxes, kept share, ignored boxes, threshold and its F1, class by class."""
    table = Table('class', box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ('boxes', 'of detected', 'ignored', 'threshold', 'F1 there', 'chosen by'):
        table.add_column(name, justify='left' if name == 'chosen by' else 'right', overflow='fold')
    rows = list(info['counts'].items())
    total = {key: sum(row[key] for _, row in rows) for key in ('detected', 'boxes', 'ignored')}
    for name, row in [*rows, ('all', total)]:
        one = info['thresholds'].get(name, {}) if row is not total else {}
        table.add_row(
            name,
            f'{row["boxes"]:,}',
            f'{row["boxes"] / row["detected"]:.0%}' if row['detected'] else '-',
            f'{row["ignored"]:,}',
            f'{one["score"]:.3f}' if one else '',
            f'{one["f1"]:.3f}' if one and one['f1'] is not None else '-' if one else '',
            one.get('source', ''),
        )
    return table


def labels_report(info: dict[str, Any]) -> str:
    """The table as text for a log, with a line on the images before it."""
    page = io.StringIO()
    Console(file=page, width=1000, color_system=None).print(labels_table(info))
    lines = [*remarks(info), *(line.rstrip() for line in page.getvalue().splitlines())]
    return '\n'.join(lines)


def remarks(info: dict[str, Any]) -> list[str]:
    """Sentences on the images, and on those left out."""
    lines = [f'{info["images"]:,} unlabelled images, {info["images_with_boxes"]:,} of them with boxes of the teacher']
    if info['labelled_left_out']:
        lines.append(
            f'{len(info["labelled_left_out"]):,} images left out, which the labelled data hold too: '
            f'{_few(info["labelled_left_out"])}'
        )
    if info['unreadable']:
        named = [f'{name} ({reason})' for name, reason in info['unreadable'].items()]
        lines.append(f'{len(named):,} images skipped, which could not be read: {_few(named)}')
    return lines


def _few(names: Sequence[str]) -> str:
    return ', '.join(names[:5]) + (f', and {len(names) - 5} more (all are in info of the file)' if names[5:] else '')
