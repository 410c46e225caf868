"""Class means of a teacher: their file, and the module that holds them.

Shapes: R rows (K classes, or K + 1 with the background last), D embedding width. Rows are raw means; a class
without regions has a row of zeros.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_ext.engine.whole_files import replacing
from kd_ext.errors import explaining, file_error, near_matches, value_error
from kd_ext.teachers.class_map import ClassMap, plain_names
from kd_ext.teachers.identity import PREFIX, teacher_digest, teacher_name, weights_digest

FORMAT = 'kd_ext class means'
TOOL = 'tools/class_means.py CONFIG {} --out {}'
FIELDS = ('means', 'counts', 'classes', 'info')


@dataclass
class ClassMeans:
    """Class means and where they come from.

    Attributes:
        means: (R, D) in fp32.
        counts: Regions of each class (R,), or None if unknown.
        classes: Names of the K classes, or None if unknown.
        info: Teacher and its digests, config, head, stage, data set, library versions.
    """

    means: Tensor
    counts: Tensor | None = None
    classes: list[str] | None = None
    info: dict = field(default_factory=dict)

    def of_classes(self, num_classes: int, classes: ClassMap, source: str = 'class_means') -> Tensor:
        """The rows for ``num_classes`` classes of a student.

        Rows are matched by name if both sides have class names; otherwise they are used as they are. ``source`` is
        the file, for messages.

        Returns:
            (R, D); a class without a mean has a row of zeros.

        Raises:
            ValueError: The number of classes differs, no class is shared, or the teacher's classes are in another
                order.
        """
        rows, width = self.means.shape
        names = None if self.classes is None else list(self.classes)
        found, fits = self.means, rows in (num_classes, num_classes + 1) and len(names or ()) in (0, num_classes)
        if names is not None and classes.student is not None:
            found = classes.rows(self.means, names)
            fits = bool(found[:num_classes].any()) and len(found) in (num_classes, num_classes + 1)
        elif names is not None and classes.teacher is not None:
            own, known = plain_names(names), plain_names(classes.teacher)
            if own != known and sorted(own) == sorted(known):
                rule = f"in the order of the teacher's classes ({', '.join(classes.teacher[:4])}, ...)"
                remedy = "Name the student's classes, classes=dict(student=[...]), to find them by name."
                raise value_error(f'the class means {source!r}', rule, f'{", ".join(names[:4])}, ...', remedy)
        if not fits:
            count = f'{rows if names is None else len(names)} classes of width {width}'
            raise value_error(
                f'the class means {source!r}',
                f"those of the student's {num_classes} classes",
                count + (f' ({", ".join(names[:4])}, ...)' if names else ''),
                f'Compute them with a teacher of the same data set: {TOOL.format("CHECKPOINT", "means.pth")}; or '
                "name the student's classes, classes=dict(student=[...]), to find them among these.",
            )
        return found

    def check_teacher(self, teacher: nn.Module, source: str, allowed: bool, place: str) -> None:
        """Compares the digests in ``info`` with the teacher's checkpoint and weights.

        Logs a warning if ``info`` has no digests, as after the import of a JSON. ``source`` is the file and
        ``place`` the entry, for messages.

        Raises:
            ValueError: The means belong to another teacher, and that is not ``allowed``.
        """
        info, path = self.info, getattr(teacher, 'checkpoint', None)
        own, name = info.get('checkpoint') or info.get('imported') or 'an unknown teacher', teacher_name(teacher)
        if info.get('checkpoint_sha256') == teacher_digest(teacher):
            return
        stored = info.get('weights_sha256')
        if stored is not None and stored == weights_digest(teacher)[:PREFIX]:
            return
        if stored is None and (path is None or info.get('checkpoint_sha256') is None):
            doubt = f'it does not say of which weights, so they may not belong to the teacher ({name})'
        elif allowed:
            doubt = f'the teacher is another one ({name}), which allow_class_means_mismatch=True allows'
        else:
            raise value_error(
                f'{place}.class_means',
                f'of the teacher {name}',
                f'those of {own} in {source!r}',
                f'Make the right file: {TOOL.format(path or "CHECKPOINT", "means.pth")}. To take these all the same, '
                'set allow_class_means_mismatch=True in the entry.',
            )
        print_log(f'{place}.class_means: {source!r} comes from {own}; {doubt}', 'current', 30)


def save_class_means(path: str | os.PathLike, class_means: ClassMeans) -> None:
    """Writes a file that loads without running code from it."""
    content = {key: getattr(class_means, key) for key in FIELDS}
    content.update(format=FORMAT, means=class_means.means.float().cpu())
    with replacing(path) as part:
        torch.save(content, part)


def load_class_means(path: str | os.PathLike) -> ClassMeans:
    """Reads a file of :func:`save_class_means` or the ND authors' JSON.

    The JSON maps class indices to lists of D numbers and has no class names.

    Raises:
        FileNotFoundError: No such file; the message lists near matches.
        ValueError: The file holds something else, or unusable means.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or '.'
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        near = near_matches(os.path.basename(path), names)
        remedy = near if names else f'The folder {folder!r} does not exist or is empty.'
        raise file_error('class_means', "a file, or 'online'", repr(path), remedy)
    rule = 'a file of tools/class_means.py or a JSON file of lists by class index'
    remedy = f'Compute it again: {TOOL.format("CHECKPOINT", "means.pth")}.'
    with explaining('class_means', rule, f'{path!r} ({{}})', remedy):
        loaded = _from_json(path) if path.endswith('.json') else _from_file(path)
        means: Any = loaded.means
        if not isinstance(means, Tensor) or means.dim() != 2 or not means.is_floating_point():
            raise ValueError('its means are no floating-point tensor (R, D)')
    check_means(loaded.means, f'class_means in {path!r}')
    return loaded


def _from_file(path: str) -> ClassMeans:
    content = torch.load(path, map_location='cpu', weights_only=True)
    if content.get('format') != FORMAT:
        raise ValueError(f'it holds {list(content)[:5]}')
    loaded = ClassMeans(**{key: content[key] for key in FIELDS})
    if loaded.classes is not None and len(loaded.means) - len(loaded.classes) not in (0, 1):
        raise ValueError(f'{len(loaded.means)} rows for {len(loaded.classes)} classes')
    return loaded


def _from_json(path: str) -> ClassMeans:
    with open(path) as file:
        content = json.load(file)
    rows = [content[str(index)] for index in range(len(content))]
    return ClassMeans(torch.tensor(rows, dtype=torch.float32), info=dict(imported=os.path.basename(path)))


def check_means(means: Tensor, name: str = 'class_means') -> None:
    """Raises a ``ValueError`` unless means (R, D) are finite and one of them is not zero."""
    if means.dim() != 2 or not means.numel():
        raise value_error(name, 'a tensor (R, D)', f'shape {tuple(means.shape)}')
    finite = bool(means.isfinite().all())
    if not finite or not means.any():
        value = 'nothing but zeros' if finite else 'inf or NaN'
        raise value_error(name, 'finite, and not all zero', value, 'Make the file again with tools/class_means.py.')


class StoredClassMeans(nn.Module):
    """Class means (R, D) in a buffer."""

    means: Tensor

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.register_buffer('means', means.float().clone())
