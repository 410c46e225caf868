"""Looks at a distillation before hours are spent on it.

    python tools/check.py CONFIG
    python tools/check.py CONFIG --teacher CONFIG --teacher-ckpt WEIGHTS \
        --distill rcka nd

Compares the class lists; scores the teacher on a few labelled images against
the same network untrained and under other normalisations; shows what is
matched with what, each term's value, share and gradient in one step, and the
cost of a step. Exit status 1 where training would be pointless.
"""

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse

from kd_ext import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_shared_options(parser)
    cli.add_distill_options(parser)
    parser.add_argument(
        '--images', type=cli.positive, default=6, metavar='N', help='images to look at (default: %(default)s)'
    )
    parser.add_argument(
        '--size', type=cli.positive, default=320, metavar='PIXELS', help='their longer side (default: %(default)s)'
    )
    return cli.parse(parser)


def main():
    args = parse_args()
    cfg = cli.apply_distill_options(cli.load_config(args), args)
    from kd_ext.cli.check import check

    check(cfg, args.images, args.size)


if __name__ == '__main__':
    cli.run(main)
