"""How the cost of each loss grows: exponents, a table and a figure.

    python -m benchmarks.growth --json results/growth.json \
        --plot results/growth.png

Each loss runs forward and backward at growing images, batches, numbers of regions and of classes. A fitted
exponent above the power of the loss' own formula (by more than what leaving the caches costs) is flagged.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.growth_model import ENTRIES, LINES, VALUES, amount, judge, make_run
from benchmarks.growth_plot import draw
from benchmarks.timing import CLOCKS, add_clock, interleave, machine, peak_memory
from kd_ext.engine.whole_files import write_text


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--only', nargs='+', choices=list(ENTRIES), default=list(ENTRIES), help='losses (default: all)'
    )
    parser.add_argument(
        '--points', type=int, default=None, metavar='N', help='the N smallest values only (at least 2), for a trial'
    )
    parser.add_argument('--repeats', type=int, default=9, help='timed runs of each value (default: %(default)s)')
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='CPU threads (default: %(default)s)'
    )
    add_clock(parser)
    parser.add_argument('--json', type=Path, help='file to write')
    parser.add_argument('--plot', type=Path, help='PNG to write')
    return parser.parse_args(argv)


def measure(line, args, advance):
    """One line of the report: a dict."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    values = VALUES[line.along][: args.points]
    runs = {value: make_run(line, value, device) for value in values}
    for run in runs.values():  # warm-up
        run()
    times = interleave(runs, args.repeats, {}, clock=CLOCKS[args.clock])
    seconds = [statistics.median(times[value]) for value in values]
    mib = [peak_memory(runs[value]) for value in values]
    advance()
    amounts = [amount(value) for value in values]
    return dict(
        loss=line.loss,
        along=line.along,
        amounts=amounts,
        seconds=seconds,
        mib=mib,
        **judge(line, amounts, seconds, mib),
    )


def table(report):
    result = Table(
        caption='power: of the formula; time, upper half and '
        'memory: fitted exponents, upper half of the values '
        'alone; memory of the largest',
        caption_justify='left',
    )
    for column in ('loss', 'along', 'ms', 'MiB', 'power', 'time', 'upper half', 'memory', 'faster'):
        result.add_column(
            column, no_wrap=column in ('loss', 'ms'), justify='left' if column in ('loss', 'along') else 'right'
        )
    for line in report:
        first, *_, last = line['seconds']
        peak = line['mib'][-1]
        result.add_row(
            line['loss'],
            line['along'],
            f'{1e3 * first:.0f} - {1e3 * last:.0f}',
            '?' if peak is None else f'{peak:.0f}',
            f'{line["power"]}',
            *('' if line[key] is None else f'{line[key]:.2f}' for key in ('time', 'time_upper_half', 'memory')),
            '[red]yes[/]' if line['faster'] else '',
        )
    return result


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    console, described = Console(), machine()
    console.print('  '.join(f'{key} {value}' for key, value in described.items() if key != 'memory'))
    chosen = [line for line in LINES if line.loss in args.only]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task('losses', total=len(chosen))
        report = [measure(line, args, lambda: progress.advance(task)) for line in chosen]
    console.print(table(report))
    for line in report:
        console.print(f'{line["loss"]} in {line["along"]}: power {line["power"]}, {line["why"]}', highlight=False)
    for path in filter(None, (args.json, args.plot)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if args.json:
        arguments = dict(threads=args.threads, repeats=args.repeats, clock=args.clock)
        write_text(args.json, json.dumps(dict(machine=described, arguments=arguments, lines=report), indent=2) + '\n')
        console.print(f'Wrote {args.json}')
    if args.plot:
        draw(report, args.plot)
        console.print(f'Wrote {args.plot}')


if __name__ == '__main__':
    main()
