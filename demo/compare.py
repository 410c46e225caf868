"""Trains a teacher, a student alone and distilled students; one table.

    python -m demo.compare --teacher T.py --student S.py --distilled A.py B.py

All students start from the same seed. Roots of data sets are given by the environment, as to tools/train.py. What
is finished is reused by the next call; ``--json`` keeps the figures with command, versions and hardware.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.runs import Run
from kd_ext.engine.whole_files import write_text


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--teacher', required=True, help='file in configs/')
    parser.add_argument('--student', required=True, help='file in configs/')
    parser.add_argument('--distilled', nargs='+', default=[], help='files in configs/ that distill the student')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'))
    parser.add_argument('--json', type=Path, help='write the figures here')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='for every training, e.g. train_cfg.max_epochs=2',
    )
    return parser.parse_args()


def train_all(args):
    """Rows ``(name, seed, result)`` in the order of the table."""
    work = args.work_dir.resolve()
    extra = dict(option.split('=', 1) for option in args.cfg_options)
    teacher = Run('teacher', args.teacher, work / 'teacher', {'randomness.seed': 0, **extra}).result()
    rows = [('teacher', 0, teacher)]
    for seed in args.seeds:
        options = {'randomness.seed': seed, **extra}
        for config in (args.student, *args.distilled):
            name = Path(config).stem
            chosen = dict(options)
            if config != args.student:
                chosen['model.teacher_ckpt'] = teacher['checkpoint']
            run = Run(name, config, work / f'{name}_{seed}', chosen).result()
            rows.append((name, seed, run))
    return rows


def show(rows):
    # COCO gives -1 where no object is of a size
    metrics = [key for key, value in rows[0][2]['metrics'].items() if value >= 0]
    table = Table(title='the same seed and schedule for every student')
    table.add_column('', no_wrap=True)
    table.add_column('seed', justify='right')
    for metric in metrics:
        table.add_column(metric.rpartition('/')[2], justify='right', no_wrap=True)
    table.add_column('seconds', justify='right')
    for name, seed, run in rows:
        table.add_row(
            name, str(seed), *(f'{run["metrics"][metric]:.3f}' for metric in metrics), f'{run["seconds"]:.0f}'
        )
    longest = max(len(name) for name, _, _ in rows)
    Console(width=longest + 30 + 13 * len(metrics)).print(table)


def write_json(args, rows):
    import mmdet
    import mmengine
    import torch

    args.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        args.json,
        json.dumps(
            dict(
                command=' '.join(['python -m demo.compare', *sys.argv[1:]]),
                versions=dict(
                    python=platform.python_version(),
                    torch=torch.__version__,
                    mmdet=mmdet.__version__,
                    mmengine=mmengine.__version__,
                ),
                hardware=dict(machine=platform.machine(), threads=torch.get_num_threads()),
                results=[
                    dict(
                        name=name,
                        seed=seed,
                        config=run['config'],
                        metrics=run['metrics'],
                        seconds=round(run['seconds']),
                        parameters=run['parameters'],
                    )
                    for name, seed, run in rows
                ],
            ),
            indent=1,
        )
        + '\n',
    )


def main():
    args = parse_args()
    rows = train_all(args)
    show(rows)
    if args.json:
        write_json(args, rows)


if __name__ == '__main__':
    main()
