"""Class means of a teacher's embeddings over a data set, for ND and NCKD.

    kd_ext means CONFIG [CHECKPOINT] --out means.pth
    (or: python tools/class_means.py CONFIG [CHECKPOINT] --out means.pth)

CONFIG is the teacher's. If it distills, its teacher, ``teacher_ckpt`` and data
set are used; CHECKPOINT replaces ``teacher_ckpt``. The teacher itself assigns
regions to classes, image by image, without augmentation. Ctrl-C and SIGTERM
save the partial result; the same command resumes. On several processes:

    python -m torch.distributed.run --nproc_per_node=8 \\
        tools/class_means.py CONFIG CHECKPOINT --out means.pth \\
        --launcher pytorch

To convert the ND authors' JSON to such a file:

    kd_ext means [CONFIG] --import-json FILE --out means.pth
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Sequence

from mmengine.dist import get_world_size, is_main_process
from mmengine.model import BaseModel
from rich.table import Table

from kd_ext.class_means.job import MeanJob
from kd_ext.class_means.stored import load_class_means, save_class_means
from kd_ext.cli.arguments import add_config_options, add_head_options, add_image_options, parse, positive, tool_parser
from kd_ext.cli.config import load_config
from kd_ext.cli.data_check import check_checkpoint, check_data
from kd_ext.cli.errors import console, tool
from kd_ext.cli.models import load_model, teacher_checkpoint, teacher_source
from kd_ext.cli.runner import join, leave
from kd_ext.data.labelled import LabelledData, check_classes, class_names, spread
from kd_ext.engine.interruption import Interrupted, Interruption
from kd_ext.engine.whole_files import check_place
from kd_ext.errors import file_error
from kd_ext.taps import find_head
from kd_ext.teachers.class_map import ClassMap
from kd_ext.teachers.identity import PREFIX, checkpoint_digest, digest, versions, weights_digest


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Computes the class means, or converts the ND authors' JSON."""
    args = parse_args(argv, prog)
    interruption = Interruption('the state so far')
    check_out(args.out)
    if args.import_json is not None:
        import_json(args)
    else:
        class_means(args, interruption)


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    add_config_options(parser, nargs='?')
    parser.add_argument('checkpoint', nargs='?', help="path or URL of the teacher's weights")
    parser.add_argument('--out', required=True, metavar='FILE.pth', help='file to write')
    add_image_options(parser, ('train', 'val'), 'train')
    add_head_options(parser)
    parser.add_argument(
        '--save-every',
        type=positive,
        default=500,
        metavar='N',
        help='images of a process between two saved states (default: %(default)s)',
    )
    parser.add_argument(
        '--fresh', action='store_true', help='start anew, without what an interrupted call has reached'
    )
    parser.add_argument(
        '--import-json', metavar='FILE.json', help="convert the ND authors' file; a CONFIG names its classes"
    )
    args = parse(parser, argv)
    if args.import_json is None and args.config is None:
        parser.error('CONFIG is required')
    return args


def class_means(args: argparse.Namespace, interruption: Interruption) -> None:
    """Computes and writes the file; every process has to call it. A signal raises ``Interrupted`` after a save."""
    cfg = load_config(args.config, args.cfg_options, args.launcher)
    if args.checkpoint is None:
        args.checkpoint = teacher_checkpoint(cfg, 'Name the weights: kd_ext means CONFIG CHECKPOINT.')
    check_checkpoint('checkpoint', args.checkpoint)
    check_data(cfg, (args.split,))
    join(cfg)
    source, name = teacher_source(cfg, args.config)
    model = load_model(source, args.checkpoint)
    head = find_head(model, 'teacher', args.stage, args.levels)
    data = LabelledData(cfg, args.split)
    check_classes(head, data)
    identity = _identity(args, source, model, data)
    job = MeanJob(
        model,
        head,
        data,
        spread(len(data), args.max_images),
        args.out,
        identity,
        args.save_every,
        args.workers,
        args.fresh,
    )
    interruption.can_save = True
    finished = job.run(lambda: bool(interruption.signum))
    if not finished or (interruption.signum and get_world_size() > 1):
        raise Interrupted(
            interruption.signum,
            f'Interrupted; what was reached is in {args.out}.partial.*\nCall the same command again to go on.',
        )
    found = job.result()
    found.classes = data.classes
    found.info.update(_info(args, name, identity, model, head, data))
    if is_main_process():
        save_class_means(args.out, found)
        show(found, args.out)
    job.finish()
    leave()


def check_out(out: str) -> None:
    """Checks that the output file can be written.

    Raises:
        FileNotFoundError: Its folder does not exist.
        ValueError: It is a folder, a device or a pipe.
    """
    folder = Path(out).parent
    if not folder.is_dir():
        raise file_error(
            '--out', 'a file in an existing folder', repr(str(out)), f'Make the folder: mkdir -p {folder}'
        )
    check_place(out, '--out')


def _identity(args: argparse.Namespace, source: dict, model: BaseModel, data: LabelledData) -> dict[str, str]:
    """What partial results must share to be merged."""
    return dict(
        teacher=digest(source),
        checkpoint=checkpoint_digest(args.checkpoint, model),
        data=digest([args.split, data.configs, len(data)]),
        stage=str(args.stage),
        levels=str(args.levels),
        max_images=str(args.max_images),
    )


def _info(
    args: argparse.Namespace, name: str, identity: dict[str, str], model: BaseModel, head: Any, data: LabelledData
) -> dict[str, Any]:
    """Facts about teacher, head and data, without paths of this machine."""
    return dict(
        teacher=name,
        checkpoint=os.path.basename(args.checkpoint),
        checkpoint_sha256=identity['checkpoint'][:PREFIX],
        weights_sha256=weights_digest(model)[:PREFIX],
        head=head.name,
        family=head.family,
        stage=getattr(head, 'stage', args.stage),
        levels=list(getattr(head, 'levels', None) or ()) or None,
        width=head.width,
        split=args.split,
        dataset=', '.join(dict.fromkeys(type(part).__name__ for part in data.parts)),
        ann_file=', '.join(os.path.basename(getattr(part, 'ann_file', '')) for part in data.parts),
        versions=versions(),
    )


def import_json(args: argparse.Namespace) -> None:
    """Converts the ND authors' JSON; raises a ``ValueError`` if its classes do not fit those of the config."""
    found = load_class_means(args.import_json)
    if args.config is not None:
        classes = class_names(load_config(args.config, args.cfg_options, args.launcher), args.split)
        if classes:
            found.of_classes(len(classes), ClassMap(), args.import_json)
            found.classes = classes
    found.info['width'] = found.means.shape[1]
    save_class_means(args.out, found)
    show(found, args.out)


def show(found: Any, path: str) -> None:
    """Prints a table of the classes and warns of those without a region."""
    rows = len(found.means)
    names = list(found.classes or map(str, range(rows)))
    names += ['background'] * (rows - len(names))
    table = Table('class', title=f'{rows} class means of width {found.means.shape[1]}: {path}')
    table.add_column('regions', justify='right')
    table.add_column('norm of the mean', justify='right')
    counts = ['-'] * rows if found.counts is None else [f'{int(count):,}' for count in found.counts]
    norms = found.means.norm(dim=1)
    for name, count, norm in zip(names, counts, norms):
        table.add_row(name, count, f'{norm:.4g}')
    console().print(table)
    unseen = [name for name, norm in zip(names, norms) if norm == 0]
    if unseen:
        print(
            f'Warning: no region of {", ".join(unseen)} was seen. Their rows are zero, and the losses leave them out.',
            file=sys.stderr,
        )
