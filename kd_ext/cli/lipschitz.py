"""What ``tools/analysis/lipschitz.py`` does, from its arguments on."""

import json
from pathlib import Path

from mmengine.dist import is_main_process
from rich.console import Console

from kd_ext.analysis.spectra.figures import draw_spectra, gaps_of, spectra_table
from kd_ext.analysis.spectra.job import SpectraJob
from kd_ext.build.configs import distills
from kd_ext.cli.config import load_config
from kd_ext.cli.data_check import check_data
from kd_ext.cli.models import chosen_models, identity, load_model
from kd_ext.cli.runner import join, leave
from kd_ext.data.images import SplitImages, spread
from kd_ext.engine.whole_files import write_text

NAME = 'lipschitz'
LOSS = 'LipschitzLoss'


def lipschitz(args):
    """Measures, prints, plots and writes; several processes call it alike."""
    cfg = load_config(args)
    chosen = chosen_models(args, cfg)
    check_data(cfg, (args.split,))
    join(cfg)
    data = SplitImages(cfg, args.split)
    job = SpectraJob(data, spread(len(data), args.max_images), args.iterations, _levels(args, cfg), args.workers)
    models = {role: load_model(source, checkpoint, role) for role, (_, source, checkpoint) in chosen.items()}
    spectra = job.run(models)
    if is_main_process():
        folder = Path(args.out or cfg.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        Console().print(spectra_table(spectra))
        write(
            folder,
            spectra,
            {role: identity(name, checkpoint, models[role]) for role, (name, _, checkpoint) in chosen.items()},
            dict(split=args.split, images=len(job.indices), num_iters=args.iterations),
        )
    leave()


def _levels(args, cfg):
    """Those of the command line, else those that the training pairs."""
    if args.levels is not None or args.teacher or not distills(cfg.model):
        return args.levels
    return next(
        (entry.get('levels') for entry in cfg.model.distill.values() if str(entry.get('type')).endswith(LOSS)), None
    )


def write(folder, spectra, about, settings):
    """Writes lipschitz.png and .json into a folder."""
    draw_spectra(spectra, folder / f'{NAME}.png')
    content = dict(
        settings,
        relative_gap=gaps_of(spectra),
        models={
            role: dict(about[role], widths=measured.widths, strides=measured.strides, sigma=measured.numbers())
            for role, measured in spectra.items()
        },
    )
    write_text(folder / f'{NAME}.json', json.dumps(content, indent=1) + '\n')
    print(f'wrote {folder}/{NAME}.png and .json')
