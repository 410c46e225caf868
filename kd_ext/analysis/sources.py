"""Which model a config and a checkpoint are, and what identifies it."""

import hashlib
import json
import os
from urllib.parse import urlparse

import torch
from mmengine.config import ConfigDict
from mmengine.device import get_device

from kd_ext.algorithms.detector import model_config
from kd_ext.algorithms.teacher import build_teacher
from kd_ext.messages import expected

ALGORITHM = 'DetectionDistill'
PREFIX = 16  # characters of a sha256 to be shown


def distills(cfg):
    """Whether a config is for :class:`DetectionDistill`."""
    kind = cfg.model.get('type')
    return getattr(kind, '__name__', str(kind)).endswith(ALGORITHM)


def teacher_source(cfg, name):
    """Model config of the teacher, and a name without a machine's paths.

    Args:
        cfg (Config): Of the teacher, or of a training under it.
        name (str): How ``cfg`` was given.
    """
    if distills(cfg):
        source = cfg.model.get('teacher')
        model = model_config(source, 'model.teacher')
        name = source if isinstance(source, str) else model['type']
    else:
        model = own_model(cfg)
    name = getattr(name, '__name__', str(name))
    return model, name if '::' in name else os.path.basename(name)


def own_model(cfg):
    """Model config of a config, which knows the scope of its types."""
    return model_config(dict(model=cfg.model, default_scope=cfg.get(
        'default_scope')), 'config')


def load_model(model, checkpoint, role='teacher'):
    """A frozen detector on this process's device."""
    return build_teacher(model, checkpoint, role=role).to(get_device())


def digest(value):
    """sha256 of a config, or of anything made of dicts and lists."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoint_digest(checkpoint, model):
    """sha256 of a checkpoint file, as ``sha256sum`` gives it.

    Of one that was fetched it is that of the copy in torch's cache; where
    there is none either, that of the weights.
    """
    if '://' in checkpoint:
        checkpoint = os.path.join(torch.hub.get_dir(), 'checkpoints',
                                  os.path.basename(urlparse(checkpoint).path))
    total = hashlib.sha256()
    if os.path.isfile(checkpoint):
        with open(checkpoint, 'rb') as file:
            for block in iter(lambda: file.read(1 << 20), b''):
                total.update(block)
        return total.hexdigest()
    for key, value in model.state_dict().items():
        total.update(key.encode())
        total.update(value.cpu().contiguous().view(-1).view(
            torch.uint8).numpy().tobytes() if value.numel() else b'')
    return total.hexdigest()


def check_classes(head, data):
    """That a model's classes are those of a data set, by number.

    Raises:
        ValueError: They are not.
    """
    if head.num_classes != len(data.classes):
        names = ', '.join(data.classes[:3])
        raise ValueError(expected(
            f'the classes of {data.split}_dataloader',
            f'the {head.num_classes} of {head.name}',
            f'{len(data.classes)} ({names}, ...)',
            'Give the data set that the model was trained on.'))
