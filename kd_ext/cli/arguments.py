"""Options of the tools, with the names that mmdet's tools gave them."""

import argparse
import os

from mmengine.config import DictAction

from kd_ext.errors import expected


def add_shared_options(parser):
    """Adds what training and testing have in common."""
    add_config_options(parser)
    parser.add_argument(
        '--work-dir',
        help='folder for logs and results (default: work_dir of the config, else work_dirs/<name of the config>)',
    )


def add_config_options(parser, **config):
    """Adds the config, its changes and the launcher.

    ``config`` is for ``add_argument`` of the config.
    """
    parser.add_argument(
        'config',
        help='path of a config, or pkg::name of an installed one, as in mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        **config,
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config; lists as '
        'key="[a,b]" or key=a,b, nested as key="[(a,b),(c,d)]", in quotes '
        'and without spaces',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='what started the processes (default: %(default)s)',
    )
    # torch.distributed.launch passes --local-rank from torch 2.0 on,
    # --local_rank before
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def add_analysis_options(parser):
    """Adds what the tools of tools/analysis have in common."""
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
        help='folder for the figure and the '
        'numbers (default: work_dir of the config, else work_dirs/<name of '
        'the config>)',
    )
    add_image_options(parser, ('train', 'val', 'test'), 'val')


def add_image_options(parser, splits, split):
    """Adds which images to read, ``split`` by default, and how."""
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


def add_head_options(parser):
    """Adds where the regions of a detector are read."""
    parser.add_argument('--stage', type=int, help='stage of a cascade (default: the first)')
    parser.add_argument('--levels', type=int, nargs='+', metavar='LEVEL', help='levels of a dense head (default: all)')


def positive(text):
    """The ``type`` of an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(expected('the value', 'a whole number of at least 1', repr(text)))
    return int(text)


def parse(parser, argv=None):
    """Parses the command line and tells MMEngine the local rank."""
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
