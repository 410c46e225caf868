"""What ``tools/analysis/neural_collapse.py`` does, from its arguments on."""

import json
from pathlib import Path

from mmengine.dist import is_main_process
from rich.console import Console
from rich.table import Table

from kd_ext.analysis.neural_collapse.figures import collapse_table, draw_collapse
from kd_ext.analysis.neural_collapse.job import CollapseJob
from kd_ext.cli.config import load_config
from kd_ext.cli.data_check import check_data
from kd_ext.cli.models import chosen_models, identity, load_model
from kd_ext.cli.runner import join, leave
from kd_ext.data.labelled import LabelledData, spread
from kd_ext.engine.whole_files import write_text
from kd_ext.taps import find_head

NAME = 'neural_collapse'
# more classes than these make a matrix no terminal shows
MOST_COLUMNS = 12


def neural_collapse(args):
    """Measures, prints, plots and writes; several processes call it alike."""
    cfg = load_config(args)
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
        about[role] = _about(name, checkpoint, model, args)
    if is_main_process():
        folder = Path(args.out or cfg.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        show(measures)
        write(
            folder,
            measures,
            about,
            dict(split=args.split, images=len(job.indices), background=args.background, min_regions=args.min_regions),
        )
    leave()


def _about(name, checkpoint, model, args):
    head = find_head(model, 'model', args.stage, args.levels)
    return dict(identity(name, checkpoint, model), head=head.name, family=head.family, width=head.width)


def show(measures):
    """Prints the measures and, of few classes, the cosine matrices."""
    console = Console()
    console.print(collapse_table(measures))
    for role, measured in measures.items():
        if len(measured.classes) <= MOST_COLUMNS:
            console.print(_matrix(role, measured))


def _matrix(role, measured):
    table = Table('', title=f'{role}: cosines of centred class means, and norms of the class means')
    for name in (*measured.classes, 'norm'):
        table.add_column(name, justify='right')
    for name, row, norm in zip(measured.classes, measured.cosines, measured.norms):
        table.add_row(name, *(f'{value:.2f}' for value in row), f'{norm:.3g}')
    return table


def write(folder, measures, about, settings):
    """Writes neural_collapse.png and .json into a folder."""
    draw_collapse(measures, folder / f'{NAME}.png')
    content = dict(
        settings,
        models={
            role: dict(
                about[role],
                **measured.numbers(),
                class_names=measured.classes,
                counts=measured.counts.tolist(),
                norms=measured.norms.tolist(),
                cosines=measured.cosines.tolist(),
            )
            for role, measured in measures.items()
        },
    )
    write_text(folder / f'{NAME}.json', json.dumps(content, indent=1) + '\n')
    print(f'wrote {folder}/{NAME}.png and .json')
