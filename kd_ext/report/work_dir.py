"""Reads a work dir: config, scalars, the log's tables and the last checkpoint.

Only the config is needed. What else is missing or damaged is said in ``notes``, a sentence each.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from kd_ext.build.configs import distills, read_config, type_name
from kd_ext.errors import file_error

STAMP = re.compile(r'\d{4}/\d\d/\d\d \d\d:\d\d:\d\d - ')
SEED = re.compile(r'^\s+seed: (\d+)$', re.MULTILINE)
FACTS = ('Python', 'PyTorch', 'MMEngine', 'OpenCV', 'GPU 0')
TERM = 'distill.loss_'


@dataclass
class Run:
    """A training as its work dir tells it.

    Attributes:
        folder: The work dir.
        cfg: Its config.
        train: Scalars of the training, a dict per logged step.
        val: Scalars of the validations, with the training step of each under ``at``.
        checkpoint: The last one, or None.
        log: Text of the newest log.
        notes: What is missing, in sentences.
    """

    folder: Path
    cfg: Config
    train: list[dict] = field(default_factory=list)
    val: list[dict] = field(default_factory=list)
    checkpoint: Path | None = None
    log: str = ''
    notes: list[str] = field(default_factory=list)

    @property
    def distills(self) -> bool:
        """Whether it trained under a teacher."""
        return distills(self.cfg.get('model'))

    @property
    def seed(self) -> int | None:
        """The seed of the config or, where MMEngine drew one, of the log."""
        given = (self.cfg.get('randomness') or {}).get('seed')
        found = SEED.search(self.log)
        return given if given is not None else int(found[1]) if found else None

    @property
    def method(self) -> dict[str, str]:
        """Type of each entry of ``distill``."""
        entries = self.cfg.model.get('distill') or {} if self.distills else {}
        return {name: type_name(entry) for name, entry in entries.items() if entry is not None}

    @property
    def terms(self) -> list[str]:
        """Names of the logged terms."""
        return list(dict.fromkeys(key[len(TERM) :] for line in self.train for key in line if key.startswith(TERM)))

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a training scalar."""
        points = [(line['step'], line[key]) for line in self.train if isinstance(line.get(key), (int, float))]
        return [x for x, _ in points], [y for _, y in points]

    def task_loss(self) -> tuple[list[int], list[float]]:
        """Steps and values of the loss without the terms of the distillation."""
        lines = [line for line in self.train if 'loss' in line]
        parts = [sum(value for key, value in line.items() if key.startswith(TERM)) for line in lines]
        return [line['step'] for line in lines], [line['loss'] - part for line, part in zip(lines, parts)]

    def versions(self) -> dict[str, str]:
        """Versions and device, from the head of the log."""
        found = {name: re.search(rf'^\s+{name}: (.+)$', self.log, re.MULTILINE) for name in FACTS}
        return {name: match[1].partition(' (')[0].strip() for name, match in found.items() if match}

    def command(self) -> str | None:
        """The command that trained it, where the log has it."""
        found = re.search(r' - command: (.+)$', self.log, re.MULTILINE)
        return found[1] if found else None

    def matches(self) -> dict[str, list] | None:
        """The table of what learned from what, as logged: columns, rows, notes."""
        _, found, text = self.log.partition('matches: what learns from what\n')
        if not found:
            return None
        lines = text[: next((match.start() for match in STAMP.finditer(text)), len(text))].splitlines()
        cells = [re.split(r'\s{2,}', line.strip()) for line in lines if line.strip()]
        rows = [line for line in cells[1:] if len(line) == len(cells[0])]
        return dict(columns=cells[0], rows=rows, notes=[' '.join(line) for line in cells[1:] if line not in rows])


def read_run(folder: str | Path) -> Run:
    """Reads a work dir.

    Raises:
        FileNotFoundError: It is no folder with the config of a training.
    """
    folder = Path(folder)
    configs = sorted(folder.glob('*/vis_data/config.py'))
    configs += [path for path in sorted(folder.glob('*.py')) if path.name != 'student.py']
    if not configs:
        inside = sorted(path.parents[2].name for path in folder.glob('*/*/vis_data/config.py'))
        raise file_error(
            'RUN',
            'a work dir, a folder that a training wrote its config and log into',
            repr(str(folder)),
            f'In it: {", ".join(dict.fromkeys(inside))}.' if inside else 'See --work-dir of tools/train.py.',
        )
    newest = [path for path in configs if path.parent.name == 'vis_data'][-1:] or configs[:1]
    run = Run(folder, read_config(newest[0]))
    _read_scalars(run)
    logs = sorted(folder.glob('*/*.log'))
    run.log = logs[-1].read_text(errors='replace') if logs else ''
    run.checkpoint = _last_checkpoint(folder)
    if run.checkpoint is None:
        run.notes.append('It holds no checkpoint, so nothing is measured on it; its curves are shown.')
    if not logs:
        run.notes.append('It holds no log, so its versions, and what learned from what, are not shown.')
    return run


def _read_scalars(run: Run) -> None:
    """All lines of all starts of a training; a later start replaces the steps that it repeats."""
    broken = 0
    for path in sorted(run.folder.glob('*/vis_data/scalars.json')):
        train: list[dict] = []
        val: list[dict] = []
        for line in path.read_text(errors='replace').splitlines():
            try:
                content = json.loads(line)
                step = int(content['step'])
            except (ValueError, KeyError, TypeError):
                broken += 1
                continue
            if 'loss' in content:
                train.append(content)
            elif any('/' in key for key in content):
                before = (train or run.train)[-1:]
                val.append({**content, 'at': before[0]['step'] if before else step})
        first = train[0]['step'] if train else float('inf')
        run.train = [line for line in run.train if line['step'] < first] + train
        run.val = [line for line in run.val if line['at'] < first] + val
    if broken:
        run.notes.append(f'{broken} line{"s" if broken > 1 else ""} of its scalars cannot be read and are left out.')
    if not run.train:
        run.notes.append('It holds no scalars of the training (vis_data/scalars.json), so no curves are shown.')
    elif _unfinished(run):
        run.notes.append(
            f'Its log ends at step {run.train[-1]["step"]}, before the schedule does; figures are so far.'
        )


def _unfinished(run: Run) -> bool:
    loop, last = run.cfg.get('train_cfg') or {}, run.train[-1]
    if loop.get('max_epochs') and last.get('epoch'):
        return last['epoch'] < loop['max_epochs']
    interval = ((run.cfg.get('default_hooks') or {}).get('logger') or {}).get('interval') or 10
    return bool(loop.get('max_iters')) and last['step'] + interval < loop['max_iters']


def _last_checkpoint(folder: Path) -> Path | None:
    """The one that ``last_checkpoint`` names, wherever the work dir lies now, else the newest."""
    pointer = folder / 'last_checkpoint'
    if pointer.is_file():
        named = folder / Path(pointer.read_text().strip()).name
        if named.is_file():
            return named
    found = [(int(match[1]), path) for path in folder.glob('*.pth') if (match := _NUMBER.fullmatch(path.name))]
    return max(found)[1] if found else None


_NUMBER = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


def primary_metric(line: dict) -> str | None:
    """The key of a validation that a reader looks at first: mAP or, without one, the first metric."""
    keys = [key for key, value in line.items() if '/' in key and isinstance(value, (int, float))]
    return next((key for key in keys if key.endswith('mAP')), keys[0] if keys else None)
