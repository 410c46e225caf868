"""Runs a declared study, or what is missing of it.

    python -m studies.run few_labels
    python -m studies.run few_labels --arms alone pkd --seeds 0 1
    python -m studies.run few_labels --dry-run

Finished cells are reused, unfinished ones go on where they stopped, and a cell that is declared otherwise than
before runs again. Without ``--arms`` our methods begin once the gate has passed; arms that are named run in any
case. The figures go to results/studies/SETTING.json after each cell; ``python -m studies.report`` makes the page.
"""

from __future__ import annotations

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse
import fcntl
import os
import signal
import sys
from pathlib import Path

from kd_ext.errors import value_error
from studies import setting
from studies.results import FOLDER
from studies.study import Study
from studies.training import Stopped


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('setting', help=f'one of {", ".join(setting.names())}, or the path of a .yml')
    parser.add_argument('--arms', nargs='+', metavar='ARM', help='these alone (default: all that are declared)')
    parser.add_argument('--seeds', nargs='+', type=int, metavar='SEED', help='these alone (default: all declared)')
    parser.add_argument(
        '--jobs', type=int, default=min(2, os.cpu_count() or 1), help='trainings at a time (default: %(default)s)'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/studies'),
        help='data, teachers and cells (default: %(default)s)',
    )
    parser.add_argument('--results', type=Path, default=FOLDER, help='folder of the JSON (default: results/studies)')
    parser.add_argument('--dry-run', action='store_true', help='list the cells and their states, and do nothing')
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f'Expected --jobs to be at least 1, but got {args.jobs}.')
    return args


def chosen(args: argparse.Namespace, declared: setting.Setting) -> tuple[list[str], list[int]]:
    """Arms and seeds to run.

    Raises:
        ValueError: One is not declared, or the setting cannot run yet.
    """
    if declared.waits:
        raise value_error('SETTING', 'one that can run', repr(declared.name), declared.waits)
    arms, seeds = args.arms or [*declared.arms], args.seeds or declared.seeds
    for name, given, known in (('--arms', arms, [*declared.arms]), ('--seeds', seeds, declared.seeds)):
        for one in given:
            if one not in known:
                raise value_error(name, f'among those of {declared.name} ({", ".join(map(str, known))})', str(one))
    return arms, seeds


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, 1 where a cell failed, 130 where it was interrupted."""
    args = parse_args(argv)
    try:
        declared = setting.load(args.setting)
        arms, seeds = chosen(args, declared)
        work = args.work_dir.resolve()
        study = Study(declared, work, args.results.resolve(), args.jobs)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.dry_run:
        for name, state in study.plan(arms, seeds):
            print(f'{name:<40}{state}')
        return 0
    # a terminated study stops as one that is interrupted by Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = work / declared.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'runner.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f'Expected {folder} to be used by one call at a time, but got another that runs. '
            print(f'{text}Wait for it, or name another --work-dir.', file=sys.stderr)
            return 2
        try:
            done = study.run(arms, seeds, past_gate=args.arms is not None)
        except (KeyboardInterrupt, Stopped):
            print('Interrupted; the same command goes on from here.', file=sys.stderr)
            return 130
    return 0 if done else 1


if __name__ == '__main__':
    sys.exit(main())
