"""The teacher in the box: trained weights in half precision, with what they are and how they were made.

    demo/teacher/teacher.json    recipe, seed, score before and after the conversion, digest, licence
    demo/teacher/teacher.pth     the weights alone
    demo/teacher/training.csv    the log of the training, thinned

``bash tools/quickstart.sh --train-teacher`` makes the same three files anew.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from threading import Event
from typing import Any

import torch
from mmengine.config import Config

from demo.ready import Ready
from kd_ext.engine.whole_files import replacing, write_text
from kd_ext.errors import file_error, value_error
from kd_ext.teachers.identity import digest, file_digest
from studies.figures import log_lines
from studies.setting import ROOT, Setting
from studies.training import Training

BOX = ROOT / 'demo' / 'teacher'
LARGEST = 8 * 2**20  # bytes
LOGGED = ('epoch', 'step', 'lr', 'loss', 'loss_cls', 'loss_bbox', 'loss_centerness')
DECIDING = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'randomness', 'custom_hooks')
EVERY = 50  # iterations from one line of training.csv to the next
AGAIN = 'Fetch it again (git checkout -- demo/teacher), or train it: bash tools/quickstart.sh --train-teacher'


def read(box: Path = BOX) -> tuple[dict[str, Any], Path]:
    """What is known of the teacher, and its weights.

    Raises:
        FileNotFoundError: One of the files is not there.
        ValueError: The weights are not those that ``teacher.json`` describes.
    """
    facts, weights = box / 'teacher.json', box / 'teacher.pth'
    for path in (facts, weights):
        if not path.is_file():
            raise file_error("the teacher's files", f'in {box}', f'no {path.name}', AGAIN)
    known = json.loads(facts.read_text())
    found = file_digest(weights)
    if found != known['sha256']:
        size = weights.stat().st_size
        raise value_error(
            f'the sha256 of {weights}',
            f'{known["sha256"]} ({known["bytes"]:,} bytes)',
            f'{found} ({size:,} bytes)',
            f'The file was changed or cut short. {AGAIN}',
        )
    return known, weights


def recipe(cfg: Config) -> str:
    """sha256 of all in a config that decides what is learned; not of places of files."""
    parts = {key: value for key, value in cfg.to_dict().items() if key in DECIDING}
    parts['train_cfg'].pop('val_interval', None)
    parts['train_dataloader']['dataset'].pop('data_root')
    return digest(parts)


def pack(training: Training, setting: Setting, box: Path, command: str) -> None:
    """Writes the three files from a finished training, and scores the halved weights on its test split.

    Args:
        training (Training): Of the teacher.
        setting (Setting): That declares it.
        box (Path): Folder to write.
        command (str): Makes the training again.

    Raises:
        ValueError: A weight does not fit into half precision, or the file is too large.
    """
    box.mkdir(parents=True, exist_ok=True)
    weights, content = box / 'teacher.pth', halved(training.checkpoint)
    with replacing(weights) as part:
        torch.save(content, part)
    size = weights.stat().st_size
    if size > LARGEST:
        raise value_error(weights.name, f'at most {LARGEST:,} bytes', f'{size:,}')
    write_log(training.folder / 'train', setting.metric, box / 'training.csv')
    record = training.record() or {}
    scored = Ready(
        training.cell, training.cfg, file_digest(weights), training.folder / 'half',
        training.metric, weights,
    ).run(Event())  # fmt: skip
    facts = dict(
        command=command,
        config=setting.teacher.config,
        setting=setting.name,
        data=setting.data['generator'],
        epochs=setting.teacher.epochs,
        seed=setting.teacher.seed,
        recipe=recipe(training.cfg),
        precision='half',
        bytes=size,
        sha256=file_digest(weights),
        parameters=count_parameters(weights),
        metrics=scored['metrics'],
        metrics_before_halving=record.get('metrics'),
        **{key: record.get(key) for key in ('seconds', 'commit', 'versions', 'hardware')},
        licence='Apache-2.0',
    )
    write_text(box / 'teacher.json', json.dumps(facts, indent=1) + '\n')


def halved(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint of the weights alone, in half precision, with the class names that mmdet's inference reads.

    Raises:
        ValueError: A weight is too large for half precision.
    """
    loaded = torch.load(checkpoint, map_location='cpu', weights_only=True)
    state = {}
    for name, value in loaded['state_dict'].items():
        state[name] = value.half() if value.is_floating_point() else value
        if not torch.isfinite(state[name]).all():
            raise value_error(name, 'finite in half precision', f'{value.abs().max():.3g} at most')
    return dict(meta=dict(dataset_meta=dict(loaded['meta']['dataset_meta'])), state_dict=state)


def count_parameters(checkpoint: Path) -> int:
    """Trained scalars of a checkpoint of this repository's own training."""
    state = torch.load(checkpoint, map_location='cpu', weights_only=True)['state_dict']
    kept = ('running_mean', 'running_var', 'num_batches_tracked')
    return sum(value.numel() for name, value in state.items() if not name.endswith(kept))


def write_log(folder: Path, metric: str, out: Path) -> None:
    """Writes every 50th logged iteration of a work dir, and its validations, as CSV."""
    rows = [one for step, one in log_lines(folder, training=True).items() if step % EVERY == 0]
    curve = log_lines(folder, training=False)
    with replacing(out) as part, open(part, 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow((*LOGGED, metric))
        for row, following in zip(rows, [*rows[1:], None]):
            # a validation stands on the last line of its epoch
            last = following is None or following['epoch'] != row['epoch']
            scored = curve.get(row['epoch'], {}).get(metric, '') if last else ''
            writer.writerow((*(f'{row[key]:.5g}' for key in LOGGED), scored))
