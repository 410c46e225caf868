"""Options that several tools share, named as in mmdet's tools."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any, Sequence

from mmengine.config import DictAction

from kd_ext.errors import expected, value_error

# environment variables that each launcher sets
LAUNCHERS = dict(
    none=(),
    pytorch=('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
)


class _Settings(DictAction):
    """``KEY=VALUE ...``; a word without ``=`` ends the tool with its usage."""

    def __call__(self, parser, namespace, values, option_string=None):
        for text in values:
            if not text.partition('=')[0].strip() or '=' not in text:
                parser.error(expected(f'a setting of {option_string}', 'KEY=VALUE', repr(text)))
        super().__call__(parser, namespace, values, option_string)


def tool_parser(doc: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help shows ``doc`` verbatim."""
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=prog, description=doc, formatter_class=formatter)


def add_config_options(parser: argparse.ArgumentParser, **config: Any) -> None:
    """Adds CONFIG (``config`` goes to its ``add_argument``), ``--cfg-options`` and the launcher."""
    parser.add_argument(
        'config',
        help='path of a config, or pkg::name of an installed one, as in mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        **config,
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        metavar='KEY=VALUE',
        help='settings that replace those of the config; lists as key="[a,b]" or key=a,b, nested as '
        'key="[(a,b),(c,d)]", in quotes and without spaces',
    )
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='what started the processes (default: %(default)s)'
    )
    # torch.distributed.launch passes --local-rank from torch 2.0 on, --local_rank before
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def add_work_dir(parser: argparse.ArgumentParser) -> None:
    """Adds ``--work-dir``."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs and results (default: work_dir of the config, else work_dirs/<name of the config>)',
    )


def add_distill_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that turn any detector's config into one that distills."""
    from kd_ext.recipes import METHODS

    group = parser.add_argument_group('distillation', 'makes the detector of CONFIG the student')
    group.add_argument('--teacher', metavar='CONFIG', help="path or pkg::name of the teacher's config")
    group.add_argument('--teacher-ckpt', metavar='WEIGHTS', help="path or URL of the teacher's checkpoint")
    group.add_argument(
        '--distill',
        nargs='+',
        metavar='METHOD[:FACTOR]',
        help=f'one or more of {", ".join(METHODS)}; without a factor a method chooses its weight in the first '
        'steps, with one it has so many times the published weight (default: rcka)',
    )


def add_analysis_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of both analysis tools."""
    add_config_options(parser)
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument(
        '--teacher',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a model to measure beside it (default: the teacher of a CONFIG that distills)',
    )
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        help='folder for the figure and the numbers (default: work_dir of the config, else work_dirs/<name of the '
        'config>)',
    )
    add_image_options(parser, ('train', 'val', 'test'), 'val')


def add_image_options(parser: argparse.ArgumentParser, splits: Sequence[str], split: str) -> None:
    """Adds the choice of images, from ``split`` by default, and the number of data workers."""
    parser.add_argument('--split', choices=splits, default=split, help='images to use (default: %(default)s)')
    parser.add_argument(
        '--max-images',
        type=positive,
        metavar='N',
        help='no more images than this, spread over the data set (default: all)',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=2,
        metavar='N',
        help='processes that read images, for each process of the launcher (default: %(default)s)',
    )


def add_head_options(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of the head's stage and levels."""
    parser.add_argument('--stage', type=int, help='stage of a cascade (default: the first)')
    parser.add_argument('--levels', type=int, nargs='+', metavar='LEVEL', help='levels of a dense head (default: all)')


def command_line(argv: Sequence[str] | None, prog: str | None) -> str:
    """The command that a tool was called with, as a user would type it."""
    words = sys.argv[1:] if argv is None else argv
    return shlex.join([*(prog.split() if prog else ['python', os.path.relpath(sys.argv[0])]), *words])


def positive(text: str) -> int:
    """The ``type`` of an option that takes a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(expected('the value', 'a whole number of at least 1', repr(text)))
    return int(text)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line and sets ``LOCAL_RANK`` for MMEngine.

    Raises:
        ValueError: ``--launcher`` names a launcher that did not start this process.
    """
    args = parser.parse_args(argv)
    missing = [name for name in LAUNCHERS[args.launcher] if name not in os.environ]
    if missing:
        raise value_error(
            '--launcher',
            f'{args.launcher!r} only in a process that it started',
            f'no {", ".join(missing)} in the environment',
            'Start several processes with tools/dist_train.sh or tools/slurm_train.sh; for one leave --launcher out.',
        )
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
