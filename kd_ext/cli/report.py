"""One page on a distillation: what was gained, where, at what cost.

    kd_ext report RUN... --out report.html
    (or: python tools/report.py RUN... --out report.html)
    kd_ext report work_dirs/rcka_0 work_dirs/rcka_1 \\
        --alone work_dirs/alone_0 work_dirs/alone_1

RUN is the work dir of a training that distilled, several for several seeds;
one of a plain training counts as --alone. Every model is scored on the test
split of the first RUN, or on the validation split if the test split has no
annotations; detections are kept in the work dir for the next call. What
cannot be read or measured is said on the page, and the rest is shown.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Sequence

from kd_ext.cli.arguments import command_line, positive, tool_parser
from kd_ext.cli.config import load_config, make_folder
from kd_ext.cli.data_check import check_checkpoint
from kd_ext.cli.errors import tool
from kd_ext.report.gather import Asked
from kd_ext.report.write import write_report


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Writes the page."""
    args = parse_args(argv, prog)
    for path in (args.out, args.json):
        if path:
            make_folder(str(Path(path).absolute().parent), 'the folder of --out and --json')
    if args.teacher:
        check_checkpoint('--teacher', args.teacher[1])
    asked = Asked(
        args.run,
        args.alone,
        tuple(args.teacher) if args.teacher else None,
        load_config(args.data) if args.data else None,
        args.split,
        args.max_images,
    )
    content = write_report(asked, args.out, args.json, args.predictions, command_line(argv, prog))
    for one in content['verdict']:
        print(one['text'])
    for note in content['notes']:
        print(f'Note: {note}', file=sys.stderr)
    print(f'wrote {args.out} ({os.path.getsize(args.out) / 2**20:.1f} MiB)')


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    parser.add_argument('run', nargs='+', metavar='RUN', help='work dirs of trainings that distilled')
    parser.add_argument('--alone', nargs='+', default=[], metavar='RUN', help='work dirs of the student alone')
    parser.add_argument(
        '--teacher',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='the teacher to show (default: that of the first RUN)',
    )
    parser.add_argument(
        '--data', metavar='CONFIG', help='config whose images are used (default: that of the first RUN)'
    )
    parser.add_argument(
        '--split', choices=('val', 'test'), help='images to use (default: test, or val without labels)'
    )
    parser.add_argument(
        '--max-images', type=positive, metavar='N', help='no more images than this, spread over the split'
    )
    parser.add_argument('--out', default='report.html', metavar='FILE', help='the page (default: %(default)s)')
    parser.add_argument('--json', metavar='FILE', help='write the figures here too')
    parser.add_argument(
        '--predictions',
        metavar='FOLDER',
        help='write the images, their ground truth and the detections of each model here, as COCO files',
    )
    return parser.parse_args(argv)
