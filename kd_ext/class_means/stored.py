"""Class means of a teacher: their file, and the running kind.

Shapes: R rows (K classes, or K + 1 with the background last), D embedding width. Rows are raw means; a class
without any region is a row of zeros.
"""

import json
import os
import pickle
from dataclasses import dataclass, field
from typing import List, Optional

import torch
from torch import Tensor, nn

from kd_ext.engine.whole_files import replacing
from kd_ext.errors import file_error, near_matches, reason, value_error
from kd_ext.losses.checks import check_tensor

FORMAT = 'kd_ext class means'


@dataclass
class ClassMeans:
    """Class means and what they were computed from.

    Attributes:
        means: (R, D) in fp32.
        counts: Regions of each class (R,), or None where not known.
        classes: Names of the K classes, or None where not known.
        info: Teacher, config, head, stage, data set, library versions.
    """

    means: Tensor
    counts: Optional[Tensor] = None
    classes: Optional[List[str]] = None
    info: dict = field(default_factory=dict)

    def of_classes(self, num_classes, classes, source='class_means'):
        """The rows for ``num_classes`` classes of a student.

        Rows are found by name where both sides name their classes, else taken as they are.

        Args:
            num_classes (int): K.
            classes (ClassMap): Knows the student's names, if anybody does.
            source (str): For messages.

        Returns:
            Tensor: (R, D); a class without a mean has a row of zeros.

        Raises:
            ValueError: Another number of classes, or none in common.
        """
        rows, width = self.means.shape
        found = None
        if self.classes is not None and classes.student is not None:
            found = classes.rows(self.means, list(self.classes))
            fits = bool(found[:num_classes].any()) and len(found) in (num_classes, num_classes + 1)
        else:
            fits = rows in (num_classes, num_classes + 1) and (
                self.classes is None or len(self.classes) == num_classes
            )
        if not fits:
            names = ', '.join((self.classes or [])[:4])
            known = rows if self.classes is None else len(self.classes)
            raise value_error(
                f'the class means {source!r}',
                f"those of the student's {num_classes} classes",
                f'{known} classes of width {width}' + (f' ({names}, ...)' if names else ''),
                'Compute them with a teacher of the same data set: '
                'tools/class_means.py CONFIG CHECKPOINT --out means.pth; or '
                "name the student's classes, classes=dict(student=[...]), "
                'to find them among these.',
            )
        return self.means if found is None else found


def save_class_means(path, class_means):
    """Writes a file that loads without running code from it."""
    content = dict(
        format=FORMAT,
        means=class_means.means.float().cpu(),
        counts=class_means.counts,
        classes=class_means.classes,
        info=class_means.info,
    )
    with replacing(path) as part:
        torch.save(content, part)


def load_class_means(path):
    """Reads a file of :func:`save_class_means` or the authors' JSON.

    The JSON of the ND authors maps class indices to lists of D numbers; it names no classes.

    Returns:
        ClassMeans

    Raises:
        FileNotFoundError: No such file; the message lists near matches.
        ValueError: The file holds something else.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or '.'
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        raise file_error(
            'class_means',
            "a file, or 'online'",
            repr(path),
            near_matches(os.path.basename(path), names)
            if names
            else f'The folder {folder!r} does not exist or is empty.',
        )
    try:
        if path.endswith('.json'):
            return _from_json(path)
        content = torch.load(path, map_location='cpu', weights_only=True)
        if content.get('format') != FORMAT:
            raise ValueError(f'it holds {list(content)[:5]}')
        check_tensor('means', content['means'], (2,), '(R, D)')
        return ClassMeans(**{key: content[key] for key in ('means', 'counts', 'classes', 'info')})
    except Exception as error:
        why = (
            reason(error)
            if isinstance(error, pickle.UnpicklingError)
            else f'{type(error).__name__}: {str(error)[:300]}'
        )
        raise value_error(
            'class_means',
            'a file of tools/class_means.py or a JSON file of lists by class index',
            f'{path!r} ({why})',
            'Compute it again: tools/class_means.py CONFIG CHECKPOINT --out means.pth.',
        ) from error


def _from_json(path):
    with open(path) as file:
        content = json.load(file)
    rows = [content[str(index)] for index in range(len(content))]
    means = torch.tensor(rows, dtype=torch.float32)
    if means.dim() != 2:
        raise ValueError(f'rows of shape {tuple(means.shape)}')
    return ClassMeans(means, info=dict(imported=os.path.basename(path)))


class StoredClassMeans(nn.Module):
    """The means of a file, in a buffer.

    Args:
        means (Tensor): (R, D).
    """

    online = False

    def __init__(self, means):
        super().__init__()
        self.register_buffer('means', means.float().clone())

    @property
    def width(self):
        """D."""
        return self.means.shape[1]
