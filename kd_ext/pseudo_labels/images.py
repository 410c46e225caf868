"""Finds the images of folders, and reads them in batches for a detector."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, Sequence

from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image
from torch.utils.data import Dataset

from kd_ext.data.images import data_scope
from kd_ext.errors import file_error
from kd_ext.teachers.identity import file_digest

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Folders:
    """The images of folders.

    Attributes:
        root: The folder that all lie in.
        names: Their paths from ``root``, in order.
        labelled: Those left out because they are among the labelled images.
    """

    root: str
    names: list[str]
    labelled: list[str]

    @property
    def paths(self) -> list[str]:
        """Their paths."""
        return [os.path.join(self.root, name) for name in self.names]


def find_images(folders: Sequence[str], labelled: Iterable[str] = ()) -> Folders:
    """Lists the images of folders and of all folders below them, each file once.

    Args:
        folders: Where to look.
        labelled: Paths of the labelled images. An image with the content (sha256) of one of them is left out.

    Raises:
        FileNotFoundError: A folder does not exist, has no image, or only images that are labelled.
    """
    known = _Known(labelled)
    found: dict[str, str] = {}
    for folder in folders:
        if not os.path.isdir(folder):
            raise file_error('the unlabelled images', 'in an existing folder', repr(folder), 'Correct the path.')
        paths = list(_walk(os.path.abspath(folder)))
        if not paths:
            raise file_error(
                'the unlabelled images',
                f'a folder with images ({", ".join(SUFFIXES)})',
                f'{folder!r} without any',
                'Name the folder that holds them; folders below it are searched too.',
            )
        for path in paths:
            found.setdefault(os.path.realpath(path), path)
    paths = sorted(found.values())
    root = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    kept: list[str] = []
    left_out: list[str] = []
    for path in paths:
        (left_out if known.has(path) else kept).append(os.path.relpath(path, root))
    if not kept:
        raise file_error(
            'the unlabelled images',
            'others than the labelled ones',
            f'{len(paths)} images in {", ".join(folders)} that the labelled data hold too',
            'Name a folder with more images.',
        )
    return Folders(root, kept, left_out)


def _walk(folder: str) -> Iterator[str]:
    seen: set[str] = set()  # a link may lead back
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if os.path.realpath(os.path.join(place, name)) not in seen]
        seen.update(os.path.realpath(os.path.join(place, name)) for name in below)
        yield from (os.path.join(place, name) for name in names if name.lower().endswith(SUFFIXES))


class _Known:
    """Labelled images by content; only files of equal size are read."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_size: dict[int, list[str]] = defaultdict(list)
        self._digests: dict[int, set[str]] = {}
        for path in paths:
            if os.path.isfile(path):
                self._by_size[os.path.getsize(path)].append(path)

    def has(self, path: str) -> bool:
        size = os.path.getsize(path) if os.path.isfile(path) else -1
        if size not in self._by_size:
            return False
        if size not in self._digests:
            self._digests[size] = {file_digest(one) for one in self._by_size[size]}
        return file_digest(path) in self._digests[size]


def in_batches(paths: Sequence[str], size: int) -> list[list[int]]:
    """Indices of images in batches of at most ``size``: landscape and portrait apart, images of one size together.

    Padding costs least so. The batches depend on the images alone, not on the number of processes.
    """
    keys: list[tuple[bool, tuple[int, int], int]] = sorted(
        (shape[0] < shape[1], shape, index) for index, shape in enumerate(map(_shape, paths))
    )
    batches = []
    for portrait in (False, True):
        group = [index for kind, _, index in keys if kind == portrait]
        batches += [group[first : first + size] for first in range(0, len(group), size)]
    return batches


def _shape(path: str) -> tuple[int, int]:
    """Width and height from the file's header; zeros where there is none, which reading will report."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # Pillow raises nearly any error on a damaged file
        return 0, 0


class ImageBatches(Dataset):
    """Batches of images by index: ``(image, sample)`` of each, or the text of the error in place of a sample.

    Args:
        cfg: Its default scope is that of the transforms.
        paths: Of the images.
        batches: Their indices, from :func:`in_batches`.
        pipeline: Transforms without annotations.
    """

    def __init__(
        self, cfg: Config, paths: Sequence[str], batches: Sequence[Sequence[int]], pipeline: Sequence[dict]
    ) -> None:
        self.paths, self.batches = paths, batches
        with data_scope(cfg):
            self.pipeline = Compose(list(pipeline))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[tuple[int, Any]]:
        return [(image, self._read(image)) for image in self.batches[index]]

    def _read(self, image: int) -> Any:
        try:
            return self.pipeline(dict(img_path=self.paths[image], img_id=image)) or 'left out by the pipeline'
        except Exception as error:  # whatever one damaged file raises must not end the job
            cause = error.__cause__ or error
            return f'{type(cause).__name__}: {str(cause).replace(self.paths[image], "the image")[:80]}'
