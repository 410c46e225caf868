"""Options of the tools, with the names that mmdet's tools gave them."""

import os

from mmengine.config import DictAction


def add_shared_options(parser):
    """Adds what training and testing have in common."""
    add_config_options(parser)
    parser.add_argument(
        '--work-dir', help='folder for logs and results (default: work_dir '
        'of the config, else work_dirs/<name of the config>)')


def add_config_options(parser, **config):
    """Adds the config, its changes and the launcher.

    ``config`` is for ``add_argument`` of the config.
    """
    parser.add_argument(
        'config', help='path of a config, or pkg::name of an installed one, '
        'as in mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', **config)
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='settings that replace those of the config; lists as '
        'key="[a,b]" or key=a,b, nested as key="[(a,b),(c,d)]", in quotes '
        'and without spaces')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none', help='what started the processes '
        '(default: %(default)s)')
    # torch.distributed.launch passes --local-rank from torch 2.0 on,
    # --local_rank before
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help='set by the launcher')


def parse(parser, argv=None):
    """Parses the command line and tells MMEngine the local rank."""
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
