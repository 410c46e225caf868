"""Class means for a classifier: from a file, a tensor or a checkpoint."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from kd_ext.class_means.stored import check_means, load_class_means
from kd_ext.errors import file_error, value_error
from kd_ext.losses.checks import check_count


def find_class_rows(source: Any, num_logits: int, width: int | None, background: bool) -> tuple[Tensor, str | None]:
    """Class means (C, D) for a classifier, with rows of zeros where there are none.

    ``source``, ``width`` and ``background`` are arguments of ``PrototypeClassifier``; C is ``num_logits``.

    Returns:
        The means, and None; or zeros, and what is missing in words, if a checkpoint has to bring the means.
    """
    if width is not None:
        check_count('width', width)
    path = source if isinstance(source, (str, os.PathLike)) else None
    if source is None or (path and not os.path.isfile(path)):
        missing = f'no file {path}' if path else 'None'
        if width is None:
            error, rule = file_error if path else value_error, 'the file that tools/class_means.py writes'
            remedy = "Where they come with a checkpoint, give width, that of the teacher's embeddings."
            raise error('class_means', rule, missing, remedy)
        return torch.zeros(num_logits, width), f'{missing}, and no checkpoint'
    rows = _from_file(path, num_logits, background) if path else _from_tensor(source, num_logits)
    if width not in (None, rows.shape[1]):
        rule = f'{rows.shape[1]}, as the class means have'
        raise value_error('width', rule, width, 'Leave width out, or make the means with this teacher.')
    means = torch.zeros(num_logits, rows.shape[1])
    means[: len(rows)] = rows
    return means, None


def _from_file(path: str | os.PathLike, num_logits: int, background: bool) -> Tensor:
    """Rows of a file for a classifier with C logits."""
    loaded = load_class_means(path)
    means = _checked(loaded.means)
    if loaded.classes is None:
        return _from_tensor(means[: max(num_logits, len(means) - 1)], num_logits)
    count = len(loaded.classes)
    if num_logits not in (count, count + 1):
        rule = f'of {num_logits - 1} classes (or {num_logits} without background), as the classifier has'
        raise value_error(f'class_means of {path}', rule, f'{count} classes', 'Class means belong to one data set.')
    if not background or num_logits == count:
        return means[:count]
    if len(means) == count:
        raise value_error(
            f'class_means of {path}',
            'with a row for the background, as background=True asks for',
            f'{count} rows for {count} classes',
            'With background=False it has a learnt row.',
        )
    return means


def _from_tensor(source: Any, num_logits: int) -> Tensor:
    means = _checked(torch.as_tensor(source))
    if len(means) not in (num_logits - 1, num_logits):
        rule, found = f'{num_logits - 1} or {num_logits} rows for {num_logits} logits', f'shape {tuple(means.shape)}'
        raise value_error('class_means', rule, found, 'Class means belong to one data set and one teacher.')
    return means


def _checked(means: Tensor) -> Tensor:
    check_means(means)
    return means.detach().cpu().float()
