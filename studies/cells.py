"""One cell of a study: an arm with a seed, as a config."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

import kd_ext
from kd_ext.pseudo_labels.training import unlabelled_config
from kd_ext.recipes import distill_config, distill_entries
from kd_ext.teachers.identity import digest
from studies.setting import ROOT, Arm, Setting

TUNING, TEST = 'tuning', 'test'
CHECKPOINTS = 20  # at most, over a training: what a killed one loses
LOGGED = 10  # iterations from one line of the log to the next


@dataclass(frozen=True)
class Choice:
    """What the weight search chooses for an arm: a variant, and the share of its terms in the loss.

    Without a share the weights are those that are written.
    """

    variant: str = ''
    share: float | None = None

    def __str__(self) -> str:
        return '_'.join(str(part) for part in (self.variant, self.share) if part not in ('', None))


@dataclass(frozen=True)
class Cell:
    """One training: an arm, a seed, and the split it is scored on. ``arm`` None is the teacher."""

    arm: Arm | None
    seed: int
    choice: Choice = Choice()
    split: str = TEST

    @property
    def name(self) -> str:
        """Of its folder."""
        if self.arm is None:
            return 'teacher'
        return '_'.join(filter(None, (self.arm.name, str(self.choice), f'seed-{self.seed}')))

    @property
    def distils(self) -> bool:
        """Whether it needs the teacher."""
        return self.arm is not None and self.arm.distils


def trials(setting: Setting, arm: Arm) -> dict[Choice, list[Cell]]:
    """The cells of the weight search of an arm, by what they try."""
    choices = [Choice(variant, share) for variant in arm.recipes() for share in setting.search.shares]
    return {choice: [Cell(arm, seed, choice, TUNING) for seed in setting.search.seeds] for choice in choices}


def entries(arm: Arm, choice: Choice) -> dict[str, dict[str, Any]]:
    r"""The entries of ``distill`` of an arm.

    With a share p of the loss, each of n entries is balanced to b = p / (n (1 - p)) times the task loss: together
    they are then p of the total.
    """
    recipe = arm.recipes()[choice.variant]
    methods = recipe.get('methods')
    found = distill_entries(methods, bool(arm.default_of)) if methods else copy.deepcopy(recipe['entries'])
    for name, changes in (recipe.get('changes') or {}).items():
        found[name].update(changes)
    if choice.share is not None:
        for entry in found.values():
            entry['balance'] = round(choice.share / (1 - choice.share) / len(found), 6)
    return found


def make_config(
    setting: Setting, cell: Cell, data: Path, teacher: tuple[Path, Path] | None, labels: Path | None = None
) -> Config:
    """The whole config of a cell's training.

    Args:
        setting (Setting): Of the cell.
        cell (Cell): What to train.
        data (Path): Root of the data.
        teacher (tuple[Path, Path] | None): Config and checkpoint, for cells that distil.
        labels (Path | None): The teacher's labels, for cells that train on unlabelled images.
    """
    part = setting.teacher if cell.arm is None else setting.student
    cfg = copy.deepcopy(_read(ROOT / part.config))
    _set_data(cfg, setting, cell, part, data)
    epochs = part.epochs * (1 if cell.arm is None else cell.arm.times)
    if setting.takes_unlabelled(cell.arm):
        epochs = max(1, round(epochs / (1 + setting.unlabelled.ratio)))
    _set_schedule(cfg, setting, epochs)
    cfg.randomness = dict(seed=cell.seed)
    # the same numbers are drawn in every arm of a seed, and after a break
    cfg.custom_hooks = [dict(type='kd_ext.ExactResumeHook')]
    cfg.merge_from_dict(part.options)
    if cell.arm is not None and cell.distils and teacher is not None:
        # the method named here stands for the entries, which follow
        distill_config(cfg, str(teacher[0]), str(teacher[1]), ['rcka'])
        cfg.model.distill = entries(cell.arm, cell.choice)
    if setting.takes_unlabelled(cell.arm) and labels is not None:
        unlabelled_config(cfg, labels, setting.unlabelled.ratio, part.images)
    return cfg


@functools.cache
def _read(path):
    return Config.fromfile(path)


def _set_data(cfg, setting, cell, part, data):
    split = 'teacher' if cell.arm is None else 'train'
    loaders = dict(train_dataloader=split, val_dataloader=TUNING, test_dataloader=cell.split)
    evaluators = dict(val_dataloader='val_evaluator', test_dataloader='test_evaluator')
    for key, name in loaders.items():
        cfg[key] = copy.deepcopy(cfg[key])  # test and validation may be one object
        loader = cfg[key]
        # workers live for an epoch: what they draw depends on seed and epoch alone
        loader.update(num_workers=1 if key == 'train_dataloader' else 0, persistent_workers=False)
        loader.dataset.update(data_root=f'{data}/', ann_file=setting.splits[name])
        if 'generator' in setting.data:
            loader.dataset.metainfo = dict(classes=classes(setting))
        if key in evaluators:
            cfg[evaluators[key]] = copy.deepcopy(cfg[evaluators[key]])
            evaluator = cfg[evaluators[key]]
            if 'ann_file' in evaluator:
                evaluator.ann_file = str(data / setting.splits[name])
    if part.images is not None:
        cfg.train_dataloader.dataset.indices = part.images


def classes(setting: Setting) -> tuple[str, ...]:
    """The names of the classes of generated data."""
    from demo.make_shapes_dataset import KINDS

    return KINDS[setting.data['generator'].get('objects', 'shapes')].classes


def _set_schedule(cfg, setting, epochs):
    cfg.train_cfg.update(max_epochs=epochs, val_interval=max(1, epochs // setting.curve_points))
    for scheduler in cfg.param_scheduler:
        if 'T_max' in scheduler:
            scheduler.T_max = epochs
    # the one before the last is kept: a training that is killed in its validation goes back to it
    checkpoint = dict(interval=max(1, epochs // CHECKPOINTS), max_keep_ckpts=2, save_best=None)
    cfg.default_hooks.checkpoint.update(checkpoint)
    cfg.default_hooks.logger.interval = LOGGED
    cfg.log_processor.window_size = LOGGED
    cfg.pop('max_epochs', None)


def cell_digest(
    setting: Setting, cell: Cell, cfg: Config, data: Path, teacher: dict[str, str] | None, labels: Path | None = None
) -> str:
    """sha256 of all that a cell is declared by.

    That is its config without the places of files, how the data are made, the split it is scored on, the digest of
    the teacher's checkpoint, and the version of kd_ext.

    Args:
        setting, cell, cfg: The cell and its config.
        data (Path): Root of the data.
        teacher (dict | None): ``folder`` and ``digest`` of the teacher, for cells that need it.
        labels (Path | None): The teacher's labels, for cells that train on unlabelled images.
    """
    content = {key: value for key, value in cfg.to_dict().items() if key not in ('work_dir', 'load_from', 'resume')}
    text = json.dumps(content, sort_keys=True, default=str).replace(str(data), 'DATA')
    if teacher:
        text = text.replace(teacher['folder'], 'TEACHER')
    unlabelled = {}
    if setting.takes_unlabelled(cell.arm):
        unlabelled = dict(unlabelled=[setting.unlabelled.images, setting.unlabelled.ratio])
        text = text.replace(str(labels), 'LABELS').replace(str(data.parent), 'DATA')
    text = text.replace(str(ROOT), 'ROOT')
    return digest(
        dict(
            config=text,
            data=setting.data,
            split=cell.split,
            metric=setting.metric,
            teacher=teacher['digest'] if teacher and (cell.distils or unlabelled) else None,
            version=kd_ext.__version__,
            **unlabelled,
        )
    )


def epochs_of(cfg: Config) -> int:
    """Of a cell's config."""
    return cfg.train_cfg.max_epochs
