"""Spectral norms between backbone stages: what LipschitzLoss matches.

    kd_ext lipschitz CONFIG CHECKPOINT
    (or: python tools/analysis/lipschitz.py CONFIG CHECKPOINT)

CONFIG is a detector's or a segmentor's. If it distills, CHECKPOINT is the
student's, and its teacher is measured too, on stages paired by stride as in
training. --teacher CONFIG CHECKPOINT names another teacher. Images go through
the transforms of validation. Stages are the backbone's, without connectors.
Writes lipschitz.png and lipschitz.json.
"""

from __future__ import annotations

import argparse
from typing import Any, Sequence

from mmengine.config import Config
from mmengine.dist import is_main_process

from kd_ext.analysis.spectra.figures import draw_spectra, gaps_of, spectra_table
from kd_ext.analysis.spectra.job import SpectraJob
from kd_ext.build.configs import distills, type_name
from kd_ext.cli.arguments import add_analysis_options, parse, positive, tool_parser
from kd_ext.cli.config import load_config
from kd_ext.cli.data_check import check_data
from kd_ext.cli.errors import console, tool
from kd_ext.cli.models import chosen_models, identity, load_model, write_results
from kd_ext.cli.runner import join, leave
from kd_ext.data.images import SplitImages, spread

NAME = 'lipschitz'


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Measures, prints, plots and writes the spectral norms; every process has to call it."""
    args = parse_args(argv, prog)
    cfg = load_config(args.config, args.cfg_options, args.launcher)
    chosen = chosen_models(args, cfg)
    check_data(cfg, (args.split,))
    join(cfg)
    data = SplitImages(cfg, args.split)
    job = SpectraJob(data, spread(len(data), args.max_images), args.iterations, _levels(args, cfg), args.workers)
    models = {role: load_model(source, checkpoint, role) for role, (_, source, checkpoint) in chosen.items()}
    spectra = job.run(models)
    if is_main_process():
        console().print(spectra_table(spectra))
        content = dict(
            split=args.split,
            images=len(job.indices),
            num_iters=args.iterations,
            relative_gap=gaps_of(spectra),
            models={
                role: dict(
                    identity(name, checkpoint, models[role]),
                    widths=spectra[role].widths,
                    strides=spectra[role].strides,
                    sigma=spectra[role].numbers(),
                )
                for role, (name, _, checkpoint) in chosen.items()
            },
        )
        write_results(args.out or cfg.work_dir, NAME, lambda path: draw_spectra(spectra, path), content)
    leave()


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    add_analysis_options(parser)
    parser.add_argument(
        '--iterations',
        type=positive,
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
    return parse(parser, argv)


def level(text: str) -> int | tuple[int, ...]:
    """``1``, or ``1:2`` for a student and a teacher level."""
    parts = text.split(':')
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f'Expected a level to be a number, or two as in 0:1, but got {text!r}.')
    numbers = tuple(map(int, parts))
    return numbers if len(numbers) == 2 else numbers[0]


def _levels(args: argparse.Namespace, cfg: Config) -> Any:
    """The levels of the command line, else those that the config's LipschitzLoss pairs."""
    if args.levels is not None or args.teacher or not distills(cfg.model):
        return args.levels
    entries = [entry for entry in cfg.model.distill.values() if type_name(entry) == 'LipschitzLoss']
    return entries[0].get('levels') if entries else None
