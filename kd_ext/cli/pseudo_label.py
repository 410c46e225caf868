"""Labels images that nobody labelled: a teacher's detections as a COCO file.

    kd_ext pseudo-label CONFIG CHECKPOINT DIR [DIR ...] --out FILE.json
    (or: python tools/pseudo_label.py CONFIG CHECKPOINT DIR --out FILE.json)
    kd_ext pseudo-label CONFIG CHECKPOINT DIR --data STUDENT.py \\
        --threshold 0.3 person=0.6 --out FILE.json --show-dir pictures

CONFIG is the teacher's, or one that distills. The labels have the classes of
the labelled data of --data. A box becomes a label where its score reaches the
threshold of its class: the one with the best F1 on the labelled images, or
one that is given. Boxes a little below become regions to ignore. Images of
the labelled data are left out, and unreadable ones are named. Ctrl-C,
SIGTERM and kill -9 lose a batch at most; the same command resumes. On several
processes:

    python -m torch.distributed.run --nproc_per_node=8 \\
        tools/pseudo_label.py CONFIG CHECKPOINT DIR --out FILE.json \\
        --launcher pytorch
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Sequence

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process

from kd_ext.build.configs import distills
from kd_ext.cli.arguments import add_config_options, add_image_options, parse, positive, tool_parser
from kd_ext.cli.class_means import check_out
from kd_ext.cli.config import load_config, make_folder
from kd_ext.cli.data_check import check_checkpoint, check_data
from kd_ext.cli.errors import console, rank, tool
from kd_ext.cli.models import teacher_checkpoint, teacher_source
from kd_ext.cli.runner import join, leave
from kd_ext.engine.interruption import Interrupted, Interruption
from kd_ext.errors import value_error
from kd_ext.pseudo_labels.coco_file import SCORE, labels_report, labels_table, read_labels, remarks
from kd_ext.pseudo_labels.labelling import IGNORE, Labelling, Teacher
from kd_ext.pseudo_labels.pictures import SAMPLE, draw_labels
from kd_ext.pseudo_labels.training import unlabelled_config
from kd_ext.teachers.identity import PREFIX, file_digest


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Labels the images of folders."""
    args = parse_args(argv, prog)
    interruption = Interruption('what was labelled so far')
    check_out(args.out)
    cfg = load_config(args.config, args.cfg_options, args.launcher)
    data = cfg if args.data is None else load_config(args.data, launcher=args.launcher)
    check_checkpoint('CHECKPOINT', args.checkpoint)
    check_data(data, (args.split,))
    teacher = teacher_of(cfg, args.config, args.checkpoint)
    teacher.aliases = {**(teacher.aliases or {}), **read_aliases(args.alias)}
    work = Labelling(
        args.dirs,
        data,
        args.out,
        args.split,
        args.threshold,
        args.ignore,
        args.max_images or 1000,
        args.batch_size,
        args.workers,
        args.fresh,
    )
    join(cfg)
    content = label(work, teacher, interruption)
    if is_main_process():
        show(content, args.out)
        if args.show_dir:
            make_folder(args.show_dir, '--show-dir')
            draw_labels(content, args.out, args.show_dir, args.pictures)
    leave()


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    add_config_options(parser)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help="path or URL of the teacher's weights")
    parser.add_argument('dirs', nargs='+', metavar='DIR', help='folder of images; those below it are searched too')
    parser.add_argument('--out', required=True, metavar='FILE.json', help='file to write')
    parser.add_argument(
        '--data', metavar='CONFIG', help="the student's config, which names the labelled data (default: CONFIG)"
    )
    add_image_options(parser, ('train', 'val'), 'train')
    parser.add_argument(
        '--threshold',
        nargs='+',
        default=(),
        metavar='[CLASS=]SCORE',
        help='score from which a box is a label, for all classes or one (default: that of the best F1 on the labelled '
        'images, class by class)',
    )
    parser.add_argument(
        '--ignore',
        type=float,
        default=IGNORE,
        metavar='PART',
        help='part of the threshold from which a box below it is a region to ignore; 1 for none (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--alias', nargs='+', default=(), metavar='CLASS=NAME', help="the teacher's name for a class of the data"
    )
    parser.add_argument(
        '--batch-size', type=positive, default=8, metavar='N', help='images at a time (default: %(default)s)'
    )
    parser.add_argument('--show-dir', metavar='FOLDER', help='folder for pictures of a sample of the labels')
    parser.add_argument(
        '--pictures', type=positive, default=SAMPLE, metavar='N', help='how many pictures (default: %(default)s)'
    )
    parser.add_argument(
        '--fresh', action='store_true', help='start anew, without what an interrupted call has reached'
    )
    return parse(parser, argv)


def teacher_of(cfg: Config, name: str, checkpoint: str) -> Teacher:
    """The teacher that a config is of, or that it distills from."""
    model, known = teacher_source(cfg, name)
    own = cfg
    classes: dict[str, Any] = {}
    if distills(cfg.model):
        classes = cfg.model.get('classes') or {}
        if isinstance(cfg.model.teacher, str):
            own = load_config(cfg.model.teacher)
    names = classes.get('teacher')
    if isinstance(names, dict):
        raise value_error('the teacher', 'one', f'{len(names)}: {", ".join(names)}', 'Name the config of one of them.')
    return Teacher(own, model, checkpoint, known, names, classes.get('aliases'))


def read_aliases(texts: Sequence[str]) -> dict[str, str]:
    """Reads ``class=name``; raises a ``ValueError`` for another form."""
    for text in texts:
        if '=' not in text.strip('='):
            raise value_error('--alias', 'CLASS=NAME', repr(text))
    return {name: other for name, _, other in (text.partition('=') for text in texts)}


def label(work: Labelling, teacher: Teacher, interruption: Interruption) -> dict[str, Any]:
    """The content of the file; a signal raises ``Interrupted`` once a batch is written."""
    interruption.can_save = True
    content = work.run(teacher, lambda: bool(interruption.signum))
    if content is None or (interruption.signum and get_world_size() > 1):
        raise Interrupted(
            interruption.signum,
            f'Interrupted; what was reached is in {work.out}.partial.*\nCall the same command again to go on.',
        )
    interruption.can_save = False
    return content


def add_unlabelled_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training with unlabelled images."""
    group = parser.add_argument_group('unlabelled images', "adds images with the teacher's detections as labels")
    group.add_argument(
        '--unlabelled',
        nargs='+',
        metavar='DIR',
        help='folders of images, which the teacher labels first (WORK_DIR/unlabelled.json); or a file of kd_ext '
        'pseudo-label',
    )
    group.add_argument(
        '--unlabelled-ratio',
        type=float,
        default=1.0,
        metavar='R',
        help='unlabelled images for each labelled one (default: %(default)s)',
    )
    group.add_argument(
        '--unlabelled-weight',
        type=lambda text: text if text == SCORE else float(text),
        default=1.0,
        metavar='W',
        help="weight of their labels in the student's own loss, from 0 to 1, or 'score' for the score of each "
        '(default: %(default)s)',
    )
    group.add_argument('--show-dir', metavar='FOLDER', help='folder for pictures of a sample of the labels')


def add_unlabelled(cfg: Config, args: argparse.Namespace, interruption: Interruption) -> str:
    """Labels the images of ``--unlabelled`` and adds them to the training; every process has to call it.

    Returns:
        A report for the log; empty without ``--unlabelled``.

    Raises:
        ValueError: There is no teacher to label folders; or a file is of another teacher.
    """
    if not args.unlabelled:
        return ''
    path = args.unlabelled[0]
    if len(args.unlabelled) > 1 or not path.endswith('.json'):
        path = os.path.join(make_folder(cfg.work_dir), 'unlabelled.json')
        if not distills(cfg.model):
            raise value_error(
                '--unlabelled',
                'a file of labels where nothing distills',
                ' '.join(args.unlabelled),
                'Say who labels the images: --teacher CONFIG --teacher-ckpt WEIGHTS. Or make the file first: kd_ext '
                'pseudo-label CONFIG CHECKPOINT DIR --out FILE.json.',
            )
        checkpoint = teacher_checkpoint(cfg, 'Label with one of them first: kd_ext pseudo-label.')
        teacher = teacher_of(cfg, args.teacher or args.config, checkpoint)
        join(cfg)
        label(Labelling(args.unlabelled, cfg, path, replace=False), teacher, interruption)
    content = read_labels(path)
    if distills(cfg.model):
        check_teacher(content, path, cfg.model.get('teacher_ckpt'))
    done = unlabelled_config(cfg, path, args.unlabelled_ratio, weight=args.unlabelled_weight)
    if args.show_dir and rank() == 0:
        draw_labels(content, path, make_folder(args.show_dir, '--show-dir'))
    return '\n'.join([labels_report(content['info']), *done])


def check_teacher(content: dict[str, Any], path: str, checkpoint: Any) -> None:
    """Checks that the labels are of the teacher that a training distills from, or of one of several.

    Raises:
        ValueError: They are of another.
    """
    paths = list(checkpoint.values()) if isinstance(checkpoint, dict) else [checkpoint]
    digests = [file_digest(one)[:PREFIX] for one in paths if os.path.isfile(one)]
    made_by = content['info']['checkpoint_sha256']
    if len(digests) == len(paths) and made_by not in digests:
        raise value_error(
            f'the labels in {path!r}',
            f'of the teacher {", ".join(map(os.path.basename, paths))} (sha256 {", ".join(digests)})',
            f'those of {content["info"]["checkpoint"]} (sha256 {made_by})',
            'Label the images with this teacher, or distill from that one.',
        )


def show(content: dict[str, Any], path: str) -> None:
    """Prints the table."""
    out = console()
    for line in remarks(content['info']):
        out.print(line, markup=False, highlight=False)
    out.print(labels_table(content['info']))
    out.print(f'wrote {path}', markup=False, highlight=False, soft_wrap=True)
