"""A generated detection set: textured shapes on clutter, from a seed.

Made for demonstrations and tests: seconds to write, minutes to learn, and hard enough that a small detector stays
behind a large one. Shapes differ in size (log-uniform), texture, contrast and rotation, lie on one another
(painter's order, boxes and masks cover the visible part) and share the image with clutter that belongs to no
class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ('disk', 'square', 'triangle', 'star', 'ring', 'cross')
MIN_VISIBLE = 0.35  # a shape hidden further than this is no object
MIN_PIXELS = 20


@dataclass(frozen=True)
class Kind:
    """What a scene is made of.

    Attributes:
        classes: Their names.
        mask: Draws one object, ``mask(rng, label, size, centre, radius)``: (H, W) bool.
        radii: Smallest and largest radius, in image heights; log-uniform between them.
        min_visible: An object of which a smaller part is visible is left out of the labels.
        whole: Keeps objects off the borders of the image.
    """

    classes: tuple[str, ...]
    mask: Callable[..., np.ndarray]
    radii: tuple[float, float] = (0.07, 0.25)
    min_visible: float = MIN_VISIBLE
    whole: bool = False


@dataclass(frozen=True)
class Scene:
    """One rendered image and what is in it.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        labels: (N,) int, indices into the classes of the kind.
        boxes: (N, 4) float, x1 y1 x2 y2 in pixels, x2 and y2 exclusive.
        masks: (N, H, W) bool, the visible pixels of each object.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


def render_scene(
    rng: np.random.Generator, size: tuple[int, int] = (128, 128), max_objects: int = 6, kind: Kind | None = None
) -> Scene:
    """Renders one scene.

    Args:
        rng (numpy.random.Generator): The only source of randomness.
        size (tuple[int]): Height and width in pixels.
        max_objects (int): At most this many objects are painted.
        kind (Kind, optional): What they are; :data:`SHAPES` by default.

    Returns:
        Scene: The image with its visible objects; at least one.
    """
    while True:
        scene = _try_scene(rng, size, max_objects, kind or SHAPES)
        if len(scene.labels):
            return scene


def _try_scene(rng, size, max_objects, kind):
    height, width = size
    image, ground = _background(rng, size)
    labels, full_areas, owner = [], [], np.full(size, -1, np.int16)
    for _ in range(rng.integers(1, max_objects + 1)):
        low, high = kind.radii
        radius = float(np.exp(rng.uniform(np.log(low * height), np.log(high * height))))
        centre = rng.uniform((0, 0), (width, height))
        if kind.whole:
            centre = centre.clip(radius, (width - radius, height - radius))
        label = int(rng.integers(len(kind.classes)))
        mask = kind.mask(rng, label, size, centre, radius)
        if not mask.any():
            continue
        paint = _texture(rng, size, _contrasting(rng, ground))
        alpha = rng.uniform(0.8, 1.0)
        image[mask] = (alpha * paint + (1 - alpha) * image)[mask]
        owner[mask] = len(labels)
        labels.append(label)
        full_areas.append(mask.sum())
    _scratches(rng, image)
    image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.2, 0.9))
    image += rng.normal(0, rng.uniform(2, 7), image.shape)
    image = image.clip(0, 255).astype(np.uint8)
    return _visible_objects(image, owner, labels, full_areas, kind.min_visible)


def _visible_objects(image, owner, labels, full_areas, min_visible):
    kept, boxes, masks = [], [], []
    for index, (label, area) in enumerate(zip(labels, full_areas)):
        mask = owner == index
        if mask.sum() < max(MIN_PIXELS, min_visible * area):
            continue
        ys, xs = np.nonzero(mask)
        kept.append(label)
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        masks.append(mask)
    shape = (len(kept), *owner.shape)
    return Scene(
        image, np.array(kept, int), np.array(boxes, float).reshape(-1, 4), np.array(masks, bool).reshape(shape)
    )


def _regular(corners, radii, turn):
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    radii = np.resize(radii, corners)
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1)


_CROSS = (
    np.array(
        [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]
    )
    / 3
)


def _shape_mask(rng, label, size, centre, radius):
    height, width = size
    name, turn = CLASSES[label], rng.uniform(0, 2 * np.pi)
    mask = np.zeros((height, width), np.uint8)
    point = tuple(int(round(c)) for c in centre)
    if name in ('disk', 'ring'):
        cv2.circle(mask, point, int(round(radius)), 1, -1)
        if name == 'ring':
            cv2.circle(mask, point, max(1, int(radius * 0.55)), 0, -1)
        return mask.astype(bool)
    if name == 'cross':
        cos, sin = np.cos(turn), np.sin(turn)
        outline = _CROSS @ np.array([[cos, sin], [-sin, cos]])
    else:
        corners, radii = dict(square=(4, 1), triangle=(3, 1), star=(10, (1, 0.45)))[name]
        outline = _regular(corners, radii, turn)
    outline = np.round(outline * radius + centre).astype(np.int32)
    cv2.fillPoly(mask, [outline], 1)
    return mask.astype(bool)


SHAPES = Kind(CLASSES, _shape_mask)


def _colour(rng, low=20, high=235):
    return rng.uniform(low, high, 3)


def _contrasting(rng, colour):
    """A colour at least 90 grey levels away in some channel."""
    while True:
        other = _colour(rng)
        if np.abs(other - colour).max() >= 90:
            return other


def _texture(rng, size, first):
    """Plain, striped, checked or dotted paint: (H, W, 3)."""
    height, width = size
    second = _contrasting(rng, first)
    ys, xs = np.mgrid[:height, :width]
    kind = rng.integers(6)
    period = rng.uniform(4, 9)
    turn = rng.uniform(0, np.pi)
    across = (xs * np.cos(turn) + ys * np.sin(turn)) / period
    along = (ys * np.cos(turn) - xs * np.sin(turn)) / period
    if kind < 3:
        pattern = np.zeros(size)
    elif kind == 3:
        pattern = np.floor(across) % 2
    elif kind == 4:
        pattern = (np.floor(across) + np.floor(along)) % 2
    else:
        pattern = (np.hypot(across % 1 - 0.5, along % 1 - 0.5) < 0.3) * 1.0
    pattern = pattern[..., None] * rng.uniform(0.3, 0.8)
    return (1 - pattern) * first + pattern * second


def _background(rng, size):
    """A soft gradient with blobs of no class; and its mean colour."""
    height, width = size
    base = _colour(rng, 50, 205)
    coarse = base + rng.uniform(-45, 45, (3, 3, 3))
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(0, 5)):
        axes = rng.uniform(3, 0.14 * height, 2)
        axes[1] *= 0.4
        cv2.ellipse(
            image,
            rng.integers(0, (width, height)).tolist(),
            np.ceil(axes).astype(int).tolist(),
            rng.uniform(0, 180),
            0,
            360,
            _colour(rng).tolist(),
            -1,
        )
    return image, base


def _scratches(rng, image):
    height, width = image.shape[:2]
    for _ in range(rng.integers(0, 4)):
        ends = rng.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(image, *ends, _colour(rng).tolist(), int(rng.integers(1, 3)), cv2.LINE_AA)
