"""What ``tools/train.py`` and ``tools/test.py`` are made of."""

import warnings

from .arguments import (
    add_analysis_options,
    add_config_options,
    add_head_options,
    add_image_options,
    add_shared_options,
    parse,
    positive,
)
from .config import enable_amp, enable_lr_scaling, load_config, student_only
from .data_check import check_checkpoint, check_data
from .distillation import add_distill_options, apply_distill_options
from .errors import run
from .evaluation import dump_predictions, enable_drawing, enable_tta
from .interrupt import Interruption, train
from .resume import choose_checkpoint
from .runner import build_runner, join, leave

# for each mmdet:: config, and nothing that a user can act on
warnings.filterwarnings('ignore', 'pkg_resources is deprecated')

__all__ = [
    'Interruption', 'add_analysis_options', 'add_config_options',
    'add_distill_options', 'add_head_options', 'add_image_options',
    'add_shared_options', 'apply_distill_options', 'build_runner',
    'check_checkpoint', 'check_data', 'choose_checkpoint', 'dump_predictions',
    'enable_amp', 'enable_drawing', 'enable_lr_scaling', 'enable_tta', 'join',
    'leave', 'load_config', 'parse', 'positive', 'run', 'student_only', 'train'
]
