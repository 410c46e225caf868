"""Neural collapse of a detector's embeddings: NC1, NC2, NC3.

    kd_ext neural-collapse CONFIG CHECKPOINT
    (or: python tools/analysis/neural_collapse.py CONFIG CHECKPOINT)

CONFIG is a detector's. If it distills, CHECKPOINT is the student's, and its
teacher is measured too. --teacher CONFIG CHECKPOINT names another teacher.
Images go through the transforms of validation; each detector assigns regions
and labels itself. Writes neural_collapse.png and neural_collapse.json.
"""

from __future__ import annotations

import argparse
from typing import Any, Sequence

from mmengine.dist import is_main_process
from rich.table import Table

from kd_ext.analysis.neural_collapse.figures import collapse_table, draw_collapse
from kd_ext.analysis.neural_collapse.job import CollapseJob
from kd_ext.cli.arguments import add_analysis_options, add_head_options, parse, tool_parser
from kd_ext.cli.config import load_config
from kd_ext.cli.data_check import check_data
from kd_ext.cli.errors import console, tool
from kd_ext.cli.models import chosen_models, identity, load_model, write_results
from kd_ext.cli.runner import join, leave
from kd_ext.data.labelled import LabelledData, spread
from kd_ext.taps import find_head

NAME = 'neural_collapse'
COLUMN = 9  # least characters of a column of the matrix


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Measures, prints, plots and writes neural collapse; every process has to call it."""
    args = parse_args(argv, prog)
    cfg = load_config(args.config, args.cfg_options, args.launcher)
    chosen = chosen_models(args, cfg)
    check_data(cfg, (args.split,))
    join(cfg)
    data = LabelledData(cfg, args.split)
    job = CollapseJob(
        data,
        spread(len(data), args.max_images),
        args.stage,
        args.levels,
        args.background,
        args.workers,
        args.min_regions,
    )
    measures, about = {}, {}
    for role, (name, source, checkpoint) in chosen.items():
        model = load_model(source, checkpoint, role)
        measures[role] = job.run(model, role)
        head = find_head(model, 'model', args.stage, args.levels)
        about[role] = dict(identity(name, checkpoint, model), head=head.name, family=head.family, width=head.width)
    if is_main_process():
        show(measures)
        content = dict(
            split=args.split,
            images=len(job.indices),
            background=args.background,
            min_regions=args.min_regions,
            models={role: dict(about[role], **_numbers(measured)) for role, measured in measures.items()},
        )
        write_results(args.out or cfg.work_dir, NAME, lambda path: draw_collapse(measures, path), content)
    leave()


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    add_analysis_options(parser)
    add_head_options(parser)
    parser.add_argument('--background', action='store_true', help='count the background as a class, in RoI heads')
    parser.add_argument(
        '--min-regions',
        type=int,
        default=1,
        metavar='N',
        help='leave classes with fewer regions out (default: %(default)s)',
    )
    return parse(parser, argv)


def _numbers(measured: Any) -> dict[str, Any]:
    return dict(
        measured.numbers(),
        class_names=measured.classes,
        counts=measured.counts.tolist(),
        norms=measured.norms.tolist(),
        cosines=measured.cosines.tolist(),
    )


def show(measures: dict[str, Any]) -> None:
    """Prints the measures and, if the terminal is wide enough, the cosine matrices."""
    out = console()
    out.print(collapse_table(measures))
    for role, measured in measures.items():
        if (len(measured.classes) + 2) * COLUMN <= out.width:
            out.print(_matrix(role, measured))


def _matrix(role: str, measured: Any) -> Table:
    table = Table('', title=f'{role}: cosines of centred class means, and norms of the class means')
    for name in (*measured.classes, 'norm'):
        table.add_column(name, justify='right', overflow='fold')
    for name, row, norm in zip(measured.classes, measured.cosines, measured.norms):
        table.add_row(name, *(f'{value:.2f}' for value in row), f'{norm:.3g}')
    return table
