"""Trains a detector, distilled or plain.

    kd_ext train CONFIG                        (or: python tools/train.py CONFIG)
    kd_ext train CONFIG --resume
    kd_ext train CONFIG --teacher CONFIG --teacher-ckpt WEIGHTS \\
        --distill rcka nd:1.5 [--unlabelled DIR]

Options are those of mmdet's tools/train.py. Ctrl-C and SIGTERM save
WORK_DIR/interrupted.pth before the run ends. --resume continues from it: at
the next iteration or, with epoch-based training, at the start of the
interrupted epoch. If the last checkpoint is damaged or missing, --resume takes
the one before it. A distillation also writes WORK_DIR/student.py, the config
of the plain student, for mmdet's own tools and DetInferencer.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Sequence

from mmengine.config import Config
from mmengine.runner import Runner

from kd_ext.build.configs import distills
from kd_ext.cli.arguments import (
    add_config_options,
    add_distill_options,
    add_work_dir,
    command_line,
    parse,
    tool_parser,
)
from kd_ext.cli.check import look
from kd_ext.cli.config import enable_amp, enable_lr_scaling, make_folder, training_config
from kd_ext.cli.data_check import check_checkpoint, check_data
from kd_ext.cli.errors import rank, tool
from kd_ext.cli.pseudo_label import add_unlabelled, add_unlabelled_options
from kd_ext.cli.runner import build_runner
from kd_ext.engine import interruption
from kd_ext.engine.resume import choose_checkpoint
from kd_ext.errors import value_error

RUN_FOLDER = re.compile(r'\d{8}_\d{6}')  # in which MMEngine keeps a run's log
OTHER_PARAMETERS = ('different number of parameter groups', "doesn't match the size of optimizer's group")


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Trains."""
    flag = interruption.Interruption()
    args = parse_args(argv, prog)
    cfg = training_config(args)
    check_compile(cfg)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_lr_scaling(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    check_checkpoint('--resume' if cfg.get('resume') else 'load_from', cfg.get('load_from'))
    if cfg.get('resume'):
        choose_checkpoint(cfg)
    check_data(cfg, ('train', 'val'))
    report = add_unlabelled(cfg, args, flag)
    folder = make_folder(cfg.work_dir)
    if rank() == 0:
        warn_of_another_run(folder, bool(cfg.get('resume')))
    runner = build_runner(cfg)
    if report:
        runner.logger.info(report)
    runner.logger.info(f'command: {command_line(argv, prog)}')  # kd_ext report shows it
    if not args.skip_check:
        look(runner)
    check_batches(runner)
    try:
        interruption.train(runner, flag)
    except ValueError as error:
        if not any(text in str(error) for text in OTHER_PARAMETERS):
            raise
        raise value_error(
            '--resume',
            'a checkpoint of a training with the same parameters',
            f'{runner._load_from or f"the last one in {folder}"!r} ({error})',
            'Go on with the config that it was trained with: a distillation may train parameters of its own. To take '
            'its weights alone, leave --resume out and add --cfg-options load_from=CHECKPOINT.',
        ) from error


def check_compile(cfg: Config) -> None:
    """Refuses ``compile`` where the model distills; raises a ``ValueError``.

    Taps, the teacher and the student's own samplers make torch compile anew for each new number of regions.
    """
    if cfg.get('compile') and distills(cfg.model):
        raise value_error(
            'compile',
            'left out of a config that distills',
            repr(cfg.compile),
            'torch would compile again and again: a distilled RetinaNet had no step done after 20 minutes.',
        )


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    add_config_options(parser)
    add_work_dir(parser)
    add_distill_options(parser)
    add_unlabelled_options(parser)
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision: float16 on a GPU, bfloat16 on a CPU (faster only where the CPU computes in '
        'it)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the real batch size, relative to auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value from the last whole one in the work dir',
    )
    parser.add_argument(
        '--skip-check', action='store_true', help='leave out the look at the teacher before a distillation'
    )
    return parse(parser, argv)


def warn_of_another_run(folder: Path, resumes: bool) -> None:
    """Warns that a work dir holds another training, whose checkpoints this one would overwrite."""
    found = [child for child in folder.iterdir() if child.suffix == '.pth']
    found += [child for child in folder.iterdir() if RUN_FOLDER.fullmatch(child.name)]
    if found and not resumes:
        print(
            f'Warning: {folder} holds another training ({max(one.name for one in found)}). Its checkpoints and those '
            'of this one will mix. Choose another folder with --work-dir, or go on with --resume.',
            file=sys.stderr,
        )


def check_batches(runner: Runner) -> None:
    """Raises a ``ValueError`` if the data set is smaller than a batch and incomplete batches are dropped."""
    data = runner.train_loop.dataloader
    try:
        count = len(data)
    except TypeError:  # a data set without an end
        return
    if not count:
        raise value_error(
            'train_dataloader.batch_size',
            f'at most the {len(data.dataset)} images of the data set where drop_last is set',
            str(runner.cfg.train_dataloader.get('batch_size')),
            'Lower it, or set train_dataloader.drop_last=False.',
        )
