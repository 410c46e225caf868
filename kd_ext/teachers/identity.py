"""Which model a config and a checkpoint are, and what identifies it."""

import hashlib
import json
import os
from urllib.parse import urlparse

import torch
from mmengine.config import ConfigDict

PREFIX = 16  # characters of a sha256 to be shown


def digest(value):
    """sha256 of a config, or of anything made of dicts and lists."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoint_digest(checkpoint, model):
    """sha256 of a checkpoint file, as ``sha256sum`` gives it.

    Of one that was fetched it is that of the copy in torch's cache; where there is none either, that of the
    weights.
    """
    if '://' in checkpoint:
        checkpoint = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(urlparse(checkpoint).path))
    total = hashlib.sha256()
    if os.path.isfile(checkpoint):
        with open(checkpoint, 'rb') as file:
            for block in iter(lambda: file.read(1 << 20), b''):
                total.update(block)
        return total.hexdigest()
    for key, value in model.state_dict().items():
        total.update(key.encode())
        total.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b'')
    return total.hexdigest()
