"""Class means of a teacher's embeddings over a data set, for ND and NCKD.

    python tools/class_means.py CONFIG [CHECKPOINT] --out means.pth

CONFIG is the teacher's, or one that distills: then its teacher counts, with
its ``teacher_ckpt`` unless a CHECKPOINT is named, and its data set. Which
regions belong to which class is the teacher's own assignment, image by image,
without augmentation. Ctrl-C and SIGTERM save what is reached; the same command
goes on from there. On several processes:

    python -m torch.distributed.run --nproc_per_node=8 \\
        tools/class_means.py CONFIG CHECKPOINT --out means.pth \\
        --launcher pytorch

The ND authors' JSON becomes such a file with

    python tools/class_means.py [CONFIG] --import-json FILE --out means.pth
"""

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse

from kd_ext import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_config_options(parser, nargs='?')
    parser.add_argument('checkpoint', nargs='?', help="path or URL of the teacher's weights")
    parser.add_argument('--out', required=True, metavar='FILE.pth', help='file to write')
    cli.add_image_options(parser, ('train', 'val'), 'train')
    cli.add_head_options(parser)
    parser.add_argument(
        '--save-every',
        type=cli.positive,
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
    args = cli.parse(parser)
    if args.import_json is None and args.config is None:
        parser.error('CONFIG is required')
    return args


def main():
    args = parse_args()
    interruption = cli.Interruption('the state so far')
    # models and data sets: too long to import for --help
    from kd_ext.cli.class_means import class_means, import_json

    if args.import_json is not None:
        import_json(args)
    else:
        class_means(args, interruption)


if __name__ == '__main__':
    cli.run(main)
