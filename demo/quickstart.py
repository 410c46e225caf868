"""Few labels: a student alone, and the same student that learns from a teacher with RCKA.

    bash tools/quickstart.sh [--seeds 0 1 2] [--control] [--work-dir work_dirs/quickstart]

The setting is studies/few_labels.yml: 200 labelled scenes for the student, a teacher that has seen 4000. The teacher
lies in demo/teacher; --train-teacher makes it anew. Two trainings run at a time, each on one thread. Then one
table, a picture of the same scenes under each detector, and a report on what was transferred. Stop it as you like:
the same command goes on from there.
"""

from __future__ import annotations

# ahead of all else: importing kd_ext makes mmrazor importable
import kd_ext  # noqa: F401

# isort: split
import argparse
import contextlib
import fcntl
import io
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from demo import teacher_box
from demo.figures import show_table, write_json
from demo.pool import Pool
from demo.ready import Ready
from kd_ext.engine.whole_files import check_place
from kd_ext.errors import value_error
from kd_ext.report.gather import Asked
from kd_ext.report.write import write_report
from studies import setting as settings
from studies.cells import Cell, cell_digest, epochs_of, make_config
from studies.data import generate, place
from studies.setting import ROOT, Setting
from studies.training import FINISHED, Failed, Stopped, Training

SETTING = 'few_labels'
TEACHER, ALONE, CONTROL, DISTILLED = 'teacher', 'alone', 'alone_x3', 'rcka_w10'
TITLES = {
    TEACHER: 'teacher',
    ALONE: 'student alone',
    CONTROL: 'student alone, three times the epochs',
    DISTILLED: 'student + RCKA',
}
CHECKPOINTS = 6  # of a training: what an interrupted one loses
SCENES = 1000  # of the test split: all of it


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='bash tools/quickstart.sh', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='seeds to train with (default: 0)')
    parser.add_argument('--control', action='store_true', help=f'also train the {TITLES[CONTROL]}')
    parser.add_argument('--train-teacher', action='store_true', help='train the teacher too: 20 more minutes')
    parser.add_argument('--epochs', type=int, help='of the students (default: 60)')
    parser.add_argument(
        '--test-scenes', type=int, default=SCENES, help='score on the first so many (default: %(default)s)'
    )
    parser.add_argument('--jobs', type=int, default=min(2, os.cpu_count() or 1), help='trainings at a time')
    parser.add_argument('--json', type=Path, help='also write the figures here')
    parser.add_argument('--setting', default=SETTING, help=argparse.SUPPRESS)  # a small one in the tests
    args = parser.parse_args(argv)
    for name in ('epochs', 'test_scenes', 'jobs'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'Expected --{name.replace("_", "-")} to be at least 1, but got {getattr(args, name)}.')
    for seed in args.seeds:
        if not 0 <= seed < 2**32:
            parser.error(f'Expected --seeds to be between 0 and 2**32 - 1, but got {seed}.')
    args.seeds = [*dict.fromkeys(args.seeds)]
    if args.json:
        try:
            check_place(args.json, '--json')
        except ValueError as error:
            parser.error(str(error))
    return args


class Quickstart:
    """The trainings of a call.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, args.work_dir.resolve()
        self.declared = settings.load(args.setting)
        self.setting = shortened(self.declared, args.epochs, args.test_scenes)
        self.data = place(self.setting, self.work)

    def teacher_training(self) -> Training:
        """The study's own training of the teacher, on all its scenes."""
        cell, data = Cell(None, self.declared.teacher.seed), place(self.declared, self.work)
        cfg = make_config(self.declared, cell, data, None)
        digest = cell_digest(self.declared, cell, cfg, data, None)
        return Training(cell, cfg, digest, self.work / 'teacher_training', self.declared.metric)

    def train_teacher(self) -> Path:
        """Trains and packs the teacher, unless that is done: the folder of its files."""
        box, training = self.work / 'teacher', self.teacher_training()
        generate(self.declared.data['generator'], place(self.declared, self.work))
        self._pool({TEACHER: training}).run()
        made_of = box / 'made_of'
        if not made_of.exists() or made_of.read_text() != training.digest:
            teacher_box.pack(training, self.declared, box, 'bash tools/quickstart.sh --train-teacher')
            made_of.write_text(training.digest)
        return box

    def trainings(self, facts: dict, weights: Path) -> dict[tuple[str, int | None], Training]:
        """All of the call, by role and seed; the longest of a seed first."""
        files = ROOT / facts['config'], weights
        known = dict(folder=str(weights.parent), digest=facts['sha256'])
        found: dict[tuple[str, int | None], Training] = {}
        for seed in self.args.seeds:
            for role in (*([CONTROL] if self.args.control else []), DISTILLED, ALONE):
                cell = Cell(self.setting.arms[role], seed)
                cfg = make_config(self.setting, cell, self.data, files)
                # only the last checkpoint is scored, and by tools/test.py
                cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
                # MMEngine formats the config anew for each checkpoint, which takes a second
                cfg.default_hooks.checkpoint.interval = max(1, epochs_of(cfg) // CHECKPOINTS)
                digest = cell_digest(self.setting, cell, cfg, self.data, known)
                found[role, seed] = Training(cell, cfg, digest, self.work / cell.name, self.setting.metric)
        cell = Cell(None, facts['seed'])
        cfg = make_config(self.setting, cell, self.data, None)
        digest = cell_digest(self.setting, cell, cfg, self.data, None) + facts['sha256']
        found[TEACHER, None] = Ready(cell, cfg, digest, self.work / 'teacher_score', self.setting.metric, weights)
        return found

    def run(self) -> None:
        """Does what is not done yet, and shows it."""
        start = time.monotonic(), cpu_seconds()
        box = self.train_teacher() if self.args.train_teacher else teacher_box.BOX
        facts, weights = teacher_box.read(box)
        self._check(facts, box)
        generate(self.setting.data['generator'], self.data)
        trainings = self.trainings(facts, weights)
        titled = {title(role, seed): training for (role, seed), training in trainings.items()}
        reused = [name for name, training in titled.items() if training.state == FINISHED]
        figures = self._pool(titled).run()
        rows = {key: figures[title(*key)] for key in trainings}
        for (role, seed), row in rows.items():
            row['parameters'] = teacher_box.count_parameters(trainings[role, seed].checkpoint)
        show_table(self.args.seeds, rows, TITLES, self.args.test_scenes)
        picture = self.draw(trainings)
        page = self.report(trainings)
        seconds, used = time.monotonic() - start[0], cpu_seconds() - start[1]
        if self.args.json:
            took = dict(seconds=round(seconds), cpu_seconds=round(used), reused=reused)
            write_json(self.args, rows, facts, self.setting, took)
        distilled = trainings[DISTILLED, self.args.seeds[0]]
        print(f'picture: {picture}')
        print(f'report: {page}')
        print(
            f'the distilled student, a plain mmdet checkpoint: {distilled.checkpoint}\n'
            f'its plain config: {trainings[ALONE, self.args.seeds[0]].config}'
        )
        print(f'done in {seconds / 60:.1f} minutes ({used:.0f} CPU seconds)')

    def draw(self, trainings: dict[tuple[str, int | None], Training]) -> Path:
        """Draws the picture of the first seed: its path."""
        from demo import picture

        seed, out = self.args.seeds[0], self.work / 'quickstart.png'
        annotations = self.data / self.setting.splits['test']
        # the distilled student in the plain config: nothing of kd_ext in it
        plain = trainings[ALONE, seed].config
        detectors = {
            TITLES[TEACHER]: (trainings[TEACHER, None].config, trainings[TEACHER, None].checkpoint),
            TITLES[ALONE]: (plain, trainings[ALONE, seed].checkpoint),
            TITLES[DISTILLED]: (plain, trainings[DISTILLED, seed].checkpoint),
        }
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools and MMEngine print what they load
            picture.draw(annotations, self.data / 'VOC2007/JPEGImages', detectors, out)
        return out

    def report(self, trainings: dict[tuple[str, int | None], Training]) -> Path:
        """Writes the page on the distillation, of all seeds: its path."""
        print('report: scoring classes, sizes and layers', flush=True)
        runs = {
            wanted: [one.folder / 'train' for (role, _), one in trainings.items() if role == wanted]
            for wanted in (DISTILLED, ALONE)
        }
        out = self.work / 'report.html'
        asked = Asked(runs[DISTILLED], runs[ALONE])
        write_report(asked, out, command='bash tools/quickstart.sh')
        return out

    def _check(self, facts, box):
        declared = dict(data=self.declared.data['generator'], recipe=teacher_box.recipe(self.teacher_training().cfg))
        for key, value in declared.items():
            if facts[key] != value:
                raise value_error(f'{key} of {box}', value, facts[key], 'Train it as it is declared: --train-teacher')

    def _pool(self, titled):
        iterations = {name: 0 if isinstance(one, Ready) else self._iterations(one) for name, one in titled.items()}
        return Pool(titled, self.args.jobs, iterations)

    def _iterations(self, training):
        teacher = training.cell.arm is None
        images = self.declared.data['generator']['train'] if teacher else self.setting.data['generator']['train']
        return epochs_of(training.cfg) * -(-images // training.cfg.train_dataloader.batch_size)


def shortened(declared: Setting, epochs: int | None, scenes: int) -> Setting:
    """The setting with the scenes that its student needs alone; image i of a split is the same in any number."""
    generator = dict(declared.data['generator'], train=declared.student.images, val=scenes, tuning=0)
    student = replace(declared.student, epochs=epochs or declared.student.epochs)
    return replace(declared, data=dict(generator=generator), student=student, curve_points=1)


def title(role: str, seed: int | None) -> str:
    """``student alone (seed 0)``."""
    return TITLES[role] + ('' if seed is None else f' (seed {seed})')


def cpu_seconds() -> float:
    """Of this process and its children that ended."""
    return sum(os.times()[:4])


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, 1 where a training failed, 2 for bad input, 130 where it was interrupted."""
    args = parse_args(argv)
    # a terminated call stops as one that is interrupted by Ctrl-C; so do its processes where a shell ignores SIGINT
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler)
    try:
        args.work_dir.mkdir(parents=True, exist_ok=True)
        with open(args.work_dir / 'lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Quickstart(args).run()
    except BlockingIOError:
        text = f'Expected {args.work_dir} to be used by one call at a time, but got another that runs. '
        print(f'{text}Wait for it, or name another --work-dir.', file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except Failed as error:
        print(f'{error}\nThe same command goes on from what is finished.', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Stopped):
        print('Interrupted; the same command goes on from here.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
