"""Times the losses beside F.mse_loss and beside the plain way to do it.

    python -m benchmarks.losses --json results/benchmark_losses.json

Every repeat runs all candidates of a case one after the other, a forward and a backward each on the same tensors.
"ratio" is the median over repeats of a candidate's time over F.mse_loss's in the same repeat.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.loss_cases import CASES
from benchmarks.timing import interleave, machine, peak_memory, summarise
from kd_ext.engine.whole_files import write_text

UNIT = 'mse'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=list(CASES), default=list(CASES), help='cases (default: all)')
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='CPU threads (default: %(default)s)'
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=15,
        help='runs of each candidate (default: %(default)s); the slow ones get fewer, see the column "runs"',
    )
    parser.add_argument('--fast-only', action='store_true', help='leave the slow candidates out')
    parser.add_argument('--shrink', type=int, default=1, help='divide channels by this, for a trial')
    parser.add_argument('--json', type=Path, help='file to write')
    return parser.parse_args()


def run_case(name, args, console):
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    case = CASES[name](device, args.shrink)
    candidates = {key: run for key, run in case.candidates.items() if not (args.fast_only and key in case.slow)}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(case.title, total=args.repeats + 1)
        for key, run in candidates.items():  # warm-up
            if key not in case.slow:
                run()
        times = interleave(candidates, args.repeats, case.slow, lambda: progress.advance(task))
        memory = {}
        for key, run in candidates.items():
            case.clear()
            memory[key] = peak_memory(run)
        progress.advance(task)
    rows = summarise(times, UNIT)
    for key, row in rows.items():
        row['memory_mib'] = memory[key]
    console.print(table(case.title, rows))
    return dict(title=case.title, candidates=rows)


def table(title, rows):
    result = Table(title=title, title_justify='left')
    result.add_column('forward + backward')
    for column in ('median', 'quartiles', 'ratio to mse', 'memory', 'runs'):
        result.add_column(column, justify='right')
    for name, row in rows.items():
        memory = row['memory_mib']
        result.add_row(
            name,
            f'{row["median_ms"]:.1f} ms',
            f'{row["quartile_low_ms"]:.1f} - {row["quartile_high_ms"]:.1f}',
            f'{row["ratio"]:.2f}',
            '?' if memory is None else f'{memory:.0f} MiB',
            str(row['runs']),
        )
    return result


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    console = Console()
    described = machine()
    report = dict(machine=described, arguments={key: value for key, value in vars(args).items() if key != 'json'})
    console.print('  '.join(f'{key} {value}' for key, value in described.items() if key != 'memory'))
    report['cases'] = {name: run_case(name, args, console) for name in args.only}
    console.print(described['memory'])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.json, json.dumps(report, indent=2) + '\n')
        console.print(f'Wrote {args.json}')


if __name__ == '__main__':
    main()
