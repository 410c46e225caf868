"""Images side by side: ground truth, teacher, student alone, distilled student."""

from __future__ import annotations

import base64
import random
from typing import Any

import mmcv

from kd_ext.report.charts import role_of
from kd_ext.report.errors_by_kind import image_scores
from kd_ext.report.gather import Gathered

THRESHOLD = 0.3
EACH = 2
SEED = 0
LONGEST = 480  # pixels
COLOURS = (
    '#e6550d',
    '#2171b5',
    '#238b45',
    '#c51b8a',
    '#7a5195',
    '#b8860b',
    '#00838f',
    '#d62728',
    '#5d4037',
    '#4b5d16',
)


def pictures(gathered: Gathered) -> dict[str, Any] | None:
    """The rule by which images were chosen, and a row for each; None without a detection.

    A row has ``file``, ``why``, ``width``, ``height``, the image as ``data`` (a URL) and ``panels``: a title and boxes
    ``(x, y, width, height, text, colour)`` each.
    """
    images = gathered.images
    shown = {role: name for role in ('teacher', 'alone', 'distilled') if (name := _first(gathered, role))}
    if images is None or not shown:
        return None
    rule, chosen = _choose(gathered, shown)
    names = {item['id']: item['name'] for item in images.truth['categories']}
    colours = {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(names)}
    rows = []
    for number, why in chosen:
        panels = [('ground truth', _boxes(images.truth['annotations'], number, names, colours))]
        panels += [
            (name, _boxes(gathered.detections[name], number, names, colours)) for name in dict.fromkeys(shown.values())
        ]
        info = next(item for item in images.truth['images'] if item['id'] == number)
        data = _encoded(images.path(number))
        keys = {key: info[key] for key in ('width', 'height')}
        rows.append(dict(keys, file=info['file_name'], why=why, data=data, panels=panels))
    return dict(rule=rule, rows=rows)


def _first(gathered: Gathered, role: str) -> str | None:
    """The first run of a role; of the alone one, preferably with the seed of the distilled."""
    names = [name for name in gathered.detections if role_of(name) == role]
    seeds = (gathered.content.get('differences') or {}).get('seeds') or []
    same = [name for name in names if seeds and gathered.content['runs'].get(name, {}).get('seed') == seeds[0]]
    return next(iter(same or names), None)


def _choose(gathered: Gathered, shown: dict[str, str]) -> tuple[str, list[tuple[Any, str]]]:
    images: Any = gathered.images
    scores = {
        role: image_scores(images.truth, gathered.detections[name], THRESHOLD)
        for role, name in shown.items()
        if role != 'teacher' or len(shown) == 1
    }
    main = scores.get('distilled') or next(iter(scores.values()))
    what, sign, most, least, value = 'F1', '', 'best', 'worst', dict(main)
    if {'alone', 'distilled'} <= set(scores):
        what, sign, most, least = 'F1 against the student alone', '+', 'largest gain', 'largest loss'
        value = {number: score - scores['alone'][number] for number, score in main.items()}
    order = sorted(value, key=lambda number: -value[number])
    best = order[:EACH]
    worst = order[: EACH - 1 : -1][:EACH]
    rest = [number for number in value if number not in {*best, *worst}]
    drawn = random.Random(SEED).sample(rest, min(EACH, len(rest)))
    chosen = [
        (number, f'{why}: {value[number]:{sign}.2f} {what}')
        for why, some in ((most, best), (least, worst), ('drawn at random', drawn))
        for number in some
    ]
    rule = (
        f'Chosen by the {what}, of an image, at IoU 0.5 and scores of {THRESHOLD} or more: {EACH} of the {most}, '
        f'{EACH} of the {least}, and {EACH} drawn at random with seed {SEED}. Boxes of lower scores are not drawn.'
    )
    return rule, chosen


def _boxes(items: list[dict], number: Any, names: dict, colours: dict) -> list[tuple]:
    return [
        (
            *(round(value, 1) for value in item['bbox']),
            names[item['category_id']] + (f' {item["score"]:.2f}' if 'score' in item else ''),
            colours[item['category_id']],
        )
        for item in items
        if item['image_id'] == number and item.get('score', 1) >= THRESHOLD
    ]


def _encoded(path: str) -> str:
    """A data URL of the image, made smaller."""
    import cv2

    image = mmcv.imread(path)
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    image = mmcv.imrescale(image, scale) if scale < 1 else image
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()
