"""Letters and digits: classes that are easy to find and hard to tell apart.

The glyphs are outlines of the fonts that matplotlib brings along, so they are the same on every machine (OpenCV's
``putText`` draws other glyphs from version 5 on). An object has a font, a turn, a slant and a width of its own, and
the texture that every object of a scene has. Classes that a turn would make equal are left out.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from demo.scenes import Kind

CLASSES = tuple('ABCDEFGHJKLMNPRSTUVXYZ234568')
FONTS = ('DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSerif', 'DejaVuSerif-Bold', 'DejaVuSansMono', 'cmr10', 'cmss10')
MAX_TURN = np.deg2rad(40)


@cache
def _outline(font: str, label: int) -> tuple[np.ndarray, ...]:
    """Closed outlines of a glyph, each (N, 2), centred, with y down and half the larger side as unit."""
    path = Path(matplotlib.get_data_path(), 'fonts/ttf', f'{font}.ttf')
    glyph = TextPath((0, 0), CLASSES[label], size=100, prop=FontProperties(fname=path))
    parts = [part * (1, -1) for part in glyph.to_polygons()]
    corners = np.concatenate(parts)
    low, high = corners.min(0), corners.max(0)
    return tuple((part - (low + high) / 2) * 2 / (high - low).max() for part in parts)


def _letter_mask(
    rng: np.random.Generator, label: int, size: tuple[int, int], centre: np.ndarray, radius: float
) -> np.ndarray:
    font = FONTS[rng.integers(len(FONTS))]
    turn, slant, wide = rng.uniform(-MAX_TURN, MAX_TURN), rng.uniform(-0.25, 0.25), rng.uniform(0.8, 1.2)
    cos, sin = np.cos(turn), np.sin(turn)
    change = np.array([[cos, -sin], [sin, cos]]) @ np.array([[wide, slant], [0, 1]]) * radius
    parts = [np.round(part @ change.T + centre).astype(np.int32) for part in _outline(font, label)]
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, parts, 1)  # even-odd: inner outlines are holes
    return mask.astype(bool)


LETTERS = Kind(CLASSES, _letter_mask, radii=(0.1, 0.2), min_visible=0.7, whole=True)
