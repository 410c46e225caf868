"""Scores the checkpoint of a detector, distilled or plain.

    python tools/test.py CONFIG CHECKPOINT

Options are those of mmdet's tools/test.py. Of a config that distills, the
student alone is built: its checkpoints are plain ones and no teacher is
needed.
"""

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse

from kd_ext import cli
from kd_ext.build.detector import student_config


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_shared_options(parser)
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument(
        '--show-dir', help="folder for images with the predictions, below the run's own folder in the work dir"
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds per shown image (default: %(default)s)')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: tta_model and tta_pipeline of the config, else a flip',
    )
    args = cli.parse(parser)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'Expected --out to be a .pkl or .pickle file, but got {args.out}.')
    return args


def main():
    args = parse_args()
    cfg = student_config(cli.load_config(args))
    cfg.load_from = args.checkpoint
    cfg.resume = False  # a dumped config may say otherwise
    cli.check_checkpoint('checkpoint', args.checkpoint)
    cli.check_data(cfg, ('test',))
    if args.show or args.show_dir:
        cli.enable_drawing(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        cli.enable_tta(cfg)
    runner = cli.build_runner(cfg)
    if args.out is not None:
        cli.dump_predictions(runner, args.out)
    runner.test()


if __name__ == '__main__':
    cli.run(main)
