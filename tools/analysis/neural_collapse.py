"""How far a detector's embeddings have collapsed: NC1, NC2, NC3.

    python tools/analysis/neural_collapse.py CONFIG CHECKPOINT

CONFIG is a detector's, or one that distills: then CHECKPOINT is the
student's, and its teacher is measured beside it. Another teacher:
--teacher CONFIG CHECKPOINT. Images go through the validation's transforms;
regions and labels are each detector's own assignment. Writes
neural_collapse.png and neural_collapse.json.
"""

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse

from kd_ext import cli


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_config_options(parser)
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('--teacher', nargs=2,
                        metavar=('CONFIG', 'CHECKPOINT'),
                        help='a detector to measure beside it (default: the '
                        'teacher of a CONFIG that distills)')
    parser.add_argument('--out', metavar='FOLDER',
                        help='folder for the figure and the numbers '
                        '(default: work_dir of the config, else '
                        'work_dirs/<name of the config>)')
    parser.add_argument('--split', choices=('train', 'val', 'test'),
                        default='val', help='images (default: %(default)s)')
    parser.add_argument('--max-images', type=int, metavar='N',
                        help='no more images than this, spread over the data '
                        'set (default: all)')
    parser.add_argument('--stage', type=int,
                        help='stage of a cascade (default: the first)')
    parser.add_argument('--levels', type=int, nargs='+', metavar='LEVEL',
                        help='levels of a dense head (default: all)')
    parser.add_argument('--background', action='store_true',
                        help='count the background as a class, in RoI heads')
    parser.add_argument('--min-regions', type=int, default=1, metavar='N',
                        help='leave classes with fewer regions out '
                        '(default: %(default)s)')
    parser.add_argument('--workers', type=int, default=2, metavar='N',
                        help='processes that read images (default: '
                        '%(default)s)')
    args = cli.parse(parser)
    if args.max_images is not None and args.max_images < 1:
        parser.error('Expected --max-images to be at least 1, but got '
                     f'{args.max_images}.')
    return args


def main():
    args = parse_args()
    # models and data sets: too long to import for --help
    from kd_ext.cli.neural_collapse import neural_collapse
    neural_collapse(args)


if __name__ == '__main__':
    cli.run(main)
