"""Distils a small detector from nothing: data, three trainings, a table.

    bash tools/quickstart.sh [--seeds 0 1 2] [--work-dir work_dirs/quickstart]

Writes the generated data set, trains a teacher, the student alone and the student under the teacher with RCKA (the
same schedule and seed for both students; the teacher has a longer one), then prints one table and draws the same
images under each of them. What is finished is reused by the next call; a changed setting trains again.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.runs import ROOT, Run
from kd_ext.engine.whole_files import write_text

TEACHER = 'fcos_r18-half_shapes.py'
ALONE = 'fcos_r18-quarter_shapes.py'
DISTILLED = 'rcka_fcos_r18-half_r18-quarter_shapes.py'
DATA = dict(train=1000, val=250, seed=0)
TEACHER_SEED = 0
PICTURED = 4


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='seeds to train with (default: 0)')
    parser.add_argument('--epochs', type=int, default=None, help="shorter or longer schedule than the configs'")
    parser.add_argument('--json', type=Path, default=None, help='also write the figures here')
    return parser.parse_args()


def make_data(folder):
    subprocess.check_call(
        [
            sys.executable,
            '-m',
            'demo.make_shapes_dataset',
            str(folder),
            *(str(part) for name, value in DATA.items() for part in (f'--{name}', value)),
        ],
        cwd=ROOT,
    )


def options(data, seed, epochs):
    chosen = {
        'randomness.seed': seed,
        'train_dataloader.dataset.data_root': data,
        'val_dataloader.dataset.data_root': data,
        'val_evaluator.ann_file': f'{data}/annotations/instances_val.json',
    }
    if epochs is not None:
        chosen.update(
            {'train_cfg.max_epochs': epochs, 'train_cfg.val_interval': epochs, 'param_scheduler.1.T_max': epochs}
        )
    return chosen


def train_all(args, work, data):
    """The results of every seed, under one teacher: list of dicts by role."""
    teacher = Run('teacher', TEACHER, work / 'teacher', options(data, TEACHER_SEED, args.epochs)).result()
    results = []
    for seed in args.seeds:
        chosen = options(data, seed, args.epochs)
        alone = Run(f'student alone (seed {seed})', ALONE, work / f'alone_{seed}', chosen).result()
        chosen = {**chosen, 'model.teacher_ckpt': teacher['checkpoint']}
        distilled = Run(f'student + RCKA (seed {seed})', DISTILLED, work / f'rcka_{seed}', chosen).result()
        results.append(dict(teacher=teacher, alone=alone, distilled=distilled))
    return results


def mean_and_spread(values):
    text = f'{statistics.mean(values):.1f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.1f}'
    return text


def show_table(results, seeds):
    table = Table(title=f'generated shapes, FCOS, seed{"s" if len(seeds) > 1 else ""} {", ".join(map(str, seeds))}')
    for column in ('', 'mAP', 'AP50', 'AP75', 'parameters', 'training time'):
        table.add_column(column, justify='left' if not column else 'right')
    for role, title in (('teacher', 'teacher'), ('alone', 'student alone'), ('distilled', 'student + RCKA')):
        rows = [result[role] for result in results]
        rows = rows[:1] if role == 'teacher' else rows
        table.add_row(
            title,
            *(
                mean_and_spread([100 * row['metrics'][f'coco/bbox_{key}'] for row in rows])
                for key in ('mAP', 'mAP_50', 'mAP_75')
            ),
            f'{rows[0]["parameters"]:,}',
            f'{statistics.mean(row["seconds"] for row in rows):.0f} s',
        )
    console = Console()
    console.print(table)
    gains = [
        100 * (result['distilled']['metrics']['coco/bbox_mAP'] - result['alone']['metrics']['coco/bbox_mAP'])
        for result in results
    ]
    console.print(
        'RCKA against the student alone: '
        + ', '.join(f'{gain:+.1f} mAP (seed {seed})' for gain, seed in zip(gains, seeds))
    )


def draw_picture(results, data, out):
    from demo import picture
    from demo.scenes import CLASSES

    annotations = data / 'annotations' / 'instances_val.json'
    content = json.loads(annotations.read_text())
    objects = Counter(item['image_id'] for item in content['annotations'])
    # the first images with something to see, whatever any detector finds
    images = [image for image in content['images'] if objects[image['id']] >= 4][:PICTURED]
    paths = [data / 'VOC2007' / 'JPEGImages' / image['file_name'] for image in images]
    columns = {'ground truth': picture.ground_truth(str(annotations), [image['id'] for image in images])}
    for role, title, config in (
        ('teacher', 'teacher', TEACHER),
        ('alone', 'student alone', ALONE),
        ('distilled', 'student + RCKA', ALONE),
    ):
        # the distilled student in its plain config: nothing of kd_ext in it
        columns[title] = picture.detections(str(ROOT / 'configs' / config), results[0][role]['checkpoint'], paths)
    picture.draw(paths, columns, CLASSES, out)


def write_json(args, results, seconds):
    import mmdet
    import torch

    args.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        args.json,
        json.dumps(
            dict(
                command='bash tools/quickstart.sh --seeds '
                + ' '.join(map(str, args.seeds))
                + (f' --epochs {args.epochs}' if args.epochs else ''),
                seeds=args.seeds,
                seconds=round(seconds),
                data=DATA,
                versions=dict(python=platform.python_version(), torch=torch.__version__, mmdet=mmdet.__version__),
                hardware=dict(machine=platform.machine(), threads=torch.get_num_threads()),
                results=[
                    {
                        role: dict(
                            metrics=run['metrics'],
                            seconds=round(run['seconds']),
                            parameters=run['parameters'],
                            config=run['config'],
                        )
                        for role, run in result.items()
                    }
                    for result in results
                ],
            ),
            indent=1,
        )
        + '\n',
    )


def main():
    args = parse_args()
    start = time.monotonic()
    work = args.work_dir.resolve()
    work.mkdir(parents=True, exist_ok=True)
    data = work / 'shapes'
    make_data(data)
    results = train_all(args, work, data)
    show_table(results, args.seeds)
    out = work / 'quickstart.png'
    draw_picture(results, data, out)
    seconds = time.monotonic() - start
    if args.json:
        write_json(args, results, seconds)
    print(f'picture: {out}')
    print(
        f'the distilled student, a plain mmdet checkpoint: '
        f'{results[0]["distilled"]["checkpoint"]} (config configs/{ALONE})'
    )
    print(f'done in {seconds / 60:.1f} minutes')


if __name__ == '__main__':
    main()
