"""``--teacher``, ``--teacher-ckpt`` and ``--distill`` of tools/train.py."""

import os
from pathlib import Path

from kd_ext.build.configs import find_config
from kd_ext.cli.config import distill_settings
from kd_ext.cli.data_check import check_checkpoint
from kd_ext.errors import value_error
from kd_ext.recipes import METHODS, distill_config


def add_distill_options(parser):
    """Adds what turns any detector's config into one that distills."""
    group = parser.add_argument_group('distillation', 'makes the detector of CONFIG the student')
    group.add_argument('--teacher', metavar='CONFIG', help="path or pkg::name of the teacher's config")
    group.add_argument('--teacher-ckpt', metavar='WEIGHTS', help="path or URL of the teacher's checkpoint")
    group.add_argument(
        '--distill',
        nargs='+',
        metavar='METHOD[:FACTOR]',
        help=f'one or more of {", ".join(METHODS)}; the factor multiplies the usual weight (default: rcka)',
    )


def apply_distill_options(cfg, args):
    """Changes ``cfg`` as the options say; without them it stays as it is.

    ``--cfg-options`` are for the plain config, but for those that only what is made of it has
    (``model.distill.rcka.levels``). The run gets a work dir of its own unless one was chosen.

    Raises:
        ValueError: An option without the others that it needs.
        FileNotFoundError: The teacher's config or checkpoint is not there.
    """
    given = {name: getattr(args, name) for name in ('teacher', 'teacher_ckpt', 'distill') if getattr(args, name)}
    if not given:
        return cfg
    for name, option in (('teacher', '--teacher'), ('teacher_ckpt', '--teacher-ckpt')):
        if name not in given:
            raise value_error(
                option,
                'given as well',
                'none',
                'A distillation takes --teacher CONFIG --teacher-ckpt WEIGHTS [--distill METHOD ...].',
            )
    find_config(args.teacher, '--teacher')
    check_checkpoint('--teacher-ckpt', args.teacher_ckpt)
    weights = args.teacher_ckpt
    if os.path.exists(weights):  # the dumped config may be used elsewhere
        weights = os.path.abspath(weights)
    methods = args.distill or ['rcka']
    distill_config(cfg, args.teacher, weights, methods)
    cfg.merge_from_dict(distill_settings(args))
    if args.work_dir is None:
        names = '-'.join(method.partition(':')[0] for method in methods)
        folder = Path(cfg.work_dir)
        cfg.work_dir = str(folder.with_name(f'{names}_{folder.name}'))
    return cfg
