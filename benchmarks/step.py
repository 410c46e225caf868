"""What a step of a distillation costs beside what it is made of.

    python -m benchmarks.step all-faster-rcnn rcka-fcos --json F python -m benchmarks.step CONFIG --distill rcka nd
    --size 400x672

CONFIG is a preset, a path or pkg::name. Every repeat runs all candidates one after the other: the student's own
step, the teacher's bare forward as far as the taps ask, the distillation step, and each term on its own. "ratio"
is the median over repeats of the distillation step over student + teacher in the same repeat. Weights are random
and images generated.
"""

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401
from kd_ext.engine.whole_files import write_text

# isort: split
import argparse
import gc
import json
import re
import statistics
from pathlib import Path

import torch
from mmengine.config import DictAction
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.step_cost import StepCost, memory_bound, overhead
from benchmarks.step_model import PRESETS, generated_batch, load_model
from benchmarks.step_rivals import OURS, pkd_rivals
from benchmarks.timing import CLOCKS, add_clock, interleave, machine, peak_memory, quartiles, summarise
from kd_ext.cli.arguments import positive
from kd_ext.cli.config import load_config
from kd_ext.cli.errors import run


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='+', help=f'config of a distillation, or a preset: {", ".join(PRESETS)}')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of every config',
    )
    parser.add_argument('--teacher', metavar='CONFIG', help="of the teacher, where CONFIG is a detector's")
    parser.add_argument('--distill', nargs='+', metavar='METHOD[:FACTOR]', help="methods in place of the config's")
    parser.add_argument(
        '--size', type=_size, default=(800, 1333), metavar='HxW', help='of the images (default: 800x1333)'
    )
    parser.add_argument('--batch', type=positive, default=1, help='images (default: %(default)s)')
    parser.add_argument(
        '--repeats', type=positive, default=7, help='timed runs of each candidate (default: %(default)s)'
    )
    parser.add_argument(
        '--threads', type=positive, default=torch.get_num_threads(), help='CPU threads (default: %(default)s)'
    )
    add_clock(parser)
    parser.add_argument(
        '--razor',
        action='store_true',
        help="also time mmrazor's SingleTeacherDistill and FpnTeacherDistill with PKD, and PKD in ours",
    )
    parser.add_argument('--json', type=Path, help='file to write')
    return parser.parse_args(argv)


def _size(text):
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if match is None or '0' in match.groups():
        raise argparse.ArgumentTypeError(f'Expected HxW, as in 800x1333, but got {text!r}.')
    return tuple(map(int, match.groups()))


def load(config, args):
    """The model of a command-line config."""
    name, methods = PRESETS.get(config, (config, None))
    cfg = load_config(name, args.cfg_options)
    return load_model(cfg, args.distill or methods, args.teacher)


def measure(config, args, console, model=None):
    """Times and memory of one config, or of a model under that name: a dict for the JSON."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = (model or load(config, args)).to(device)
    cost = StepCost(model, generated_batch(model, *args.size, args.batch))
    parts = cost.parts()
    if args.razor:
        parts.update({name: cost.step(rival.to(device)) for name, rival in pkd_rivals(model).items()})
    terms = {f'term {name}': run for name, run in cost.terms().items()}
    runs = {**parts, **terms}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(config, total=args.repeats + 2)
        for run in runs.values():  # warm-up
            run()
        progress.advance(task)
        times = interleave(runs, args.repeats, {}, lambda: progress.advance(task), CLOCKS[args.clock])
        peaks = {name: peak_memory(run) for name, run in runs.items()}
    rows = summarise(times, 'student')
    for name, row in rows.items():
        row['memory_mib'] = peaks[name]
        row['to_ideal'] = overhead({**times, 'distilled': times[name]}, terms) if name in parts else None
    weights = cost.memory()
    return dict(
        distill=list(model.distiller.terms),
        reach=cost.reaches(),
        losses=cost.losses,
        candidates=rows,
        overhead=overhead(times, terms),
        weights_mib=weights,
        memory=memory_bound(peaks, weights),
        to_rivals={name: beside(times, OURS, name) for name in parts if name.startswith('mmrazor ')},
    )


def beside(times, one, other):
    """How a candidate compares with another in the same repeat: median ratio and quartiles."""
    ratios = [a / b for a, b in zip(times[one], times[other])]
    return dict(ratio=statistics.median(ratios), ratio_quartiles=list(quartiles(ratios)))


def table(title, report):
    result = Table(title=title, title_justify='left')
    result.add_column('candidate', overflow='fold')
    for column in ('ms', 'quartiles', 'of student', 'of sum', 'MiB', 'of loss'):
        result.add_column(column, justify='right')
    for name, row in report['candidates'].items():
        ideal, memory = row['to_ideal'], row['memory_mib']
        share = sum(
            value for key, value in report['losses'].items() if re.fullmatch(f'share_{name[5:]}(_nc[12])?', key)
        )
        result.add_row(
            name,
            f'{row["median_ms"]:.1f}',
            f'{row["quartile_low_ms"]:.0f} - {row["quartile_high_ms"]:.0f}',
            f'{row["ratio"]:.3f}',
            f'{ideal["ratio"]:.3f}' if ideal and name not in ('student', 'teacher') else '',
            '?' if memory is None else f'{memory:.0f}',
            f'{share:.1%}' if name.startswith('term ') else '',
        )
    return result


def show(config, report, args, console):
    height, width = args.size
    reach = ', '.join(f'{name} to its {how}' for name, how in report['reach'].items())
    console.print(
        table(f'{config}: {", ".join(report["distill"])}; {args.batch} x {height} x {width}; {reach}', report)
    )
    found = report['overhead']
    low, high = found['ratio_quartiles']
    console.print(
        f'distilled / (student + teacher): {found["ratio"]:.3f} '
        f'({low:.3f} - {high:.3f}); {found["extra_ms"]:.0f} ms more, of '
        f'which terms {found["terms_ms"]:.0f} ms, other '
        f'{found["other_ms"]:.0f} ms'
    )
    for name, one in report['to_rivals'].items():
        console.print(
            f'{OURS} / {name}: {one["ratio"]:.3f} ({" - ".join(f"{q:.3f}" for q in one["ratio_quartiles"])})'
        )
    if report['memory']:
        console.print(
            'memory, weights included: {used:.0f} MiB of {allowed:.0f} MiB allowed'.format(**report['memory'])
        )


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    console, described = Console(), machine()
    console.print('  '.join(f'{key} {value}' for key, value in described.items() if key != 'memory'))
    report = dict(machine=described, arguments={key: value for key, value in vars(args).items() if key != 'json'})
    report['configs'] = {}
    for config in args.config:
        report['configs'][config] = measure(config, args, console)
        show(config, report['configs'][config], args, console)
        gc.collect()  # the models of this config
    console.print(
        'of the sum: a candidate over student + teacher, the median of ratios in one repeat. ' + described['memory']
    )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.json, json.dumps(report, indent=2) + '\n')
        console.print(f'Wrote {args.json}')


if __name__ == '__main__':
    run(main)
