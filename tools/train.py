"""Trains a detector, distilled or plain.

    python tools/train.py CONFIG
    python tools/train.py CONFIG --resume
    python tools/train.py CONFIG --teacher CONFIG --teacher-ckpt WEIGHTS \\
        --distill rcka nd:1.5

Options are those of mmdet's tools/train.py. Ctrl-C and SIGTERM save
WORK_DIR/interrupted.pth first; --resume goes on from it: at the next
iteration, or at the start of the interrupted epoch where training is by
epoch. Where the last checkpoint is damaged or gone, the one before it is
taken.
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
        '--amp',
        action='store_true',
        help='train in mixed precision: '
        'float16 on a GPU, bfloat16 on a CPU (faster only where the CPU '
        'computes in it)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the real batch size, relative to auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value from the last whole one in the work dir',
    )
    parser.add_argument(
        '--skip-check', action='store_true', help='leave out the look at the teacher before a distillation'
    )
    return cli.parse(parser)


def main():
    interruption = cli.Interruption()
    args = parse_args()
    cfg = cli.apply_distill_options(cli.load_config(args), args)
    if args.amp:
        cli.enable_amp(cfg)
    if args.auto_scale_lr:
        cli.enable_lr_scaling(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    cli.check_checkpoint('--resume' if cfg.get('resume') else 'load_from', cfg.get('load_from'))
    if cfg.get('resume'):
        cli.choose_checkpoint(cfg)
    cli.check_data(cfg, ('train', 'val'))
    runner = cli.build_runner(cfg)
    if not args.skip_check:
        # models and data sets: too long to import for --help
        from kd_ext.cli.check import look

        look(runner)
    cli.train(runner, interruption)


if __name__ == '__main__':
    cli.run(main)
