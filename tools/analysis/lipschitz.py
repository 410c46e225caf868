"""Spectral norms between backbone stages: what LipschitzLoss matches.

    python tools/analysis/lipschitz.py CONFIG CHECKPOINT

CONFIG is a detector's or a segmentor's, or one that distills: then
CHECKPOINT is the student's, and its teacher is measured beside it, on stages
that are paired by stride as in training. Another teacher: --teacher CONFIG
CHECKPOINT. Images go through the validation's transforms, and stages are
those of the backbone, without connectors. Writes lipschitz.png and
lipschitz.json.
"""

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse

from kd_ext import cli


def level(text):
    """``1``, or ``1:2`` for a student and a teacher level."""
    parts = text.split(':')
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f'Expected a level to be a number, or two as in 0:1, but got {text!r}.')
    numbers = tuple(map(int, parts))
    return numbers if len(numbers) == 2 else numbers[0]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_analysis_options(parser)
    parser.add_argument(
        '--iterations',
        type=cli.positive,
        default=30,
        metavar='N',
        help='steps of the power iteration, at most; the loss takes 10 (default: %(default)s)',
    )
    parser.add_argument(
        '--levels',
        nargs='+',
        type=level,
        metavar='LEVEL',
        help='stages to compare, as 1 2 3, or as 0:1 1:2 of student and teacher (default: by stride)',
    )
    return cli.parse(parser)


def main():
    args = parse_args()
    # models and data sets: too long to import for --help
    from kd_ext.cli.lipschitz import lipschitz

    lipschitz(args)


if __name__ == '__main__':
    cli.run(main)
