"""Names and digests that identify a model's config and checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.config import ConfigDict
from torch import nn

PREFIX = 16  # characters of a sha256 that are stored and shown


def digest(value: Any) -> str:
    """sha256 of a config, or of anything made of dicts and lists."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | os.PathLike) -> str:
    """sha256 of a file, as ``sha256sum`` gives it."""
    total = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            total.update(block)
    return total.hexdigest()


def checkpoint_digest(checkpoint: str, model: nn.Module) -> str:
    """sha256 of a checkpoint file, as ``sha256sum`` gives it.

    For a URL, the file in torch's cache is read. Without a file, the digest is that of the weights.
    """
    if '://' in checkpoint:
        checkpoint = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(urlparse(checkpoint).path))
    if not os.path.isfile(checkpoint):
        return weights_digest(model)
    return file_digest(checkpoint)


def weights_digest(model: nn.Module) -> str:
    """sha256 of the names and values in a model's state dict."""
    total = hashlib.sha256()
    for key, value in model.state_dict().items():
        total.update(key.encode())
        total.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b'')
    return total.hexdigest()


def teacher_digest(teacher: nn.Module) -> str:
    """Identifies a teacher in checkpoints: the digest of its file or, without one, of its weights."""
    return checkpoint_digest(getattr(teacher, 'checkpoint', ''), teacher)[:PREFIX]


def teacher_name(teacher: nn.Module) -> str:
    """The file name of the teacher's checkpoint, or its class."""
    path = getattr(teacher, 'checkpoint', '')
    return os.path.basename(path) or f'a {type(teacher).__name__} without a checkpoint'


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    import mmcv
    import mmdet
    import mmengine

    import kd_ext

    return {module.__name__: str(module.__version__) for module in (kd_ext, mmcv, mmdet, mmengine, torch)}
