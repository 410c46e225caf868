"""What ``tools/train.py`` and ``tools/test.py`` are made of."""

import warnings

from kd_ext.cli.arguments import (
    add_analysis_options,
    add_config_options,
    add_head_options,
    add_image_options,
    add_shared_options,
    parse,
    positive,
)
from kd_ext.cli.config import enable_amp, enable_lr_scaling, load_config
from kd_ext.cli.data_check import check_checkpoint, check_data
from kd_ext.cli.distillation import add_distill_options, apply_distill_options
from kd_ext.cli.errors import run
from kd_ext.cli.evaluation import dump_predictions, enable_drawing, enable_tta
from kd_ext.cli.runner import build_runner, join, leave
from kd_ext.engine.interruption import Interruption, train
from kd_ext.engine.resume import choose_checkpoint

# for each mmdet:: config, and nothing that a user can act on
warnings.filterwarnings('ignore', 'pkg_resources is deprecated')

__all__ = [
    'Interruption',
    'add_analysis_options',
    'add_config_options',
    'add_distill_options',
    'add_head_options',
    'add_image_options',
    'add_shared_options',
    'apply_distill_options',
    'build_runner',
    'check_checkpoint',
    'check_data',
    'choose_checkpoint',
    'dump_predictions',
    'enable_amp',
    'enable_drawing',
    'enable_lr_scaling',
    'enable_tta',
    'join',
    'leave',
    'load_config',
    'parse',
    'positive',
    'run',
    'train',
]
