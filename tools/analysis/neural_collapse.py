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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_analysis_options(parser)
    cli.add_head_options(parser)
    parser.add_argument('--background', action='store_true', help='count the background as a class, in RoI heads')
    parser.add_argument(
        '--min-regions',
        type=int,
        default=1,
        metavar='N',
        help='leave classes with fewer regions out (default: %(default)s)',
    )
    return cli.parse(parser)


def main():
    args = parse_args()
    # models and data sets: too long to import for --help
    from kd_ext.cli.neural_collapse import neural_collapse

    neural_collapse(args)


if __name__ == '__main__':
    cli.run(main)
