"""What work dirs tell without a model: curves, cost of a step, origin, and in what else the runs differ."""

from __future__ import annotations

import statistics
from typing import Any

from mmengine.config import Config

from kd_ext.build.detector import own_model, student_config
from kd_ext.report.work_dir import Run, primary_metric
from kd_ext.teachers.identity import PREFIX, digest


def _student(cfg: Config) -> Any:
    return _bare(own_model(student_config(cfg)))


def _bare(model: Any) -> Any:
    """A model config without what building it writes into it: mmdet's detectors hand their settings to the heads."""
    if isinstance(model, dict):
        return {key: _bare(value) for key, value in model.items() if key not in ('_scope_', 'train_cfg', 'test_cfg')}
    return model


SAME = {
    'another student': _student,
    'other training images': lambda cfg: (cfg.get('train_dataloader') or {}).get('dataset'),
    'other test images': lambda cfg: (cfg.get('test_dataloader') or {}).get('dataset'),
    'another schedule': lambda cfg: [cfg.get(key) for key in ('train_cfg', 'optim_wrapper', 'param_scheduler')],
}


def curves(run: Run) -> dict[str, Any]:
    """Steps and values of the task loss, of each term, its share and factor, and of the first metric."""
    key = next((key for line in run.val if (key := primary_metric(line))), None)
    points = [(line['at'], line[key]) for line in run.val if key in line]
    terms = {
        name: {kind: run.curve(f'distill.{kind}_{name}') for kind in ('loss', 'share', 'factor')} for name in run.terms
    }
    return dict(task=run.task_loss(), terms=terms, metric=key, val=([x for x, _ in points], [y for _, y in points]))


def cost(run: Run) -> dict[str, Any]:
    """Medians over the logged steps, without the first tenth, in which caches fill."""
    lines = run.train[len(run.train) // 10 :]
    values = {key: [line[key] for line in lines if key in line] for key in ('time', 'data_time', 'memory')}
    return {key: statistics.median(value) if value else None for key, value in values.items()}


def identity(name: str, run: Run) -> dict[str, Any]:
    """Identifies a run without paths of this machine."""
    return dict(
        role=name.partition(',')[0],
        seed=run.seed,
        folder='/'.join(run.folder.resolve().parts[-2:]),
        config_sha256=digest(run.cfg.to_dict())[:PREFIX],
        checkpoint=run.checkpoint.name if run.checkpoint else None,
        versions=run.versions(),
        command=run.command(),
    )


def unlike(distilled: dict[str, Run], alone: dict[str, Run]) -> list[str]:
    """In what else than distillation the runs differ from the first one, in sentences."""
    notes = []
    (first, main), *others = {**distilled, **alone}.items()
    if not alone:
        notes.append('No training of the student alone is given (--alone), so what was gained is not known.')
    for name, run in others:
        for what, cut in SAME.items():
            if digest(cut(run.cfg)) != digest(cut(main.cfg)):
                notes.append(f'{name}: it has {what} than {first}, which makes a difference too.')
    seeds = [{run.seed for run in runs.values()} for runs in (distilled, alone)]
    if all(seeds) and len(seeds[0] & seeds[1]) == 1:
        notes.append('One seed: a difference may be chance. Three seeds or more give an interval.')
    elif all(seeds) and not seeds[0] & seeds[1]:
        notes.append('The runs have no seed in common, so differences are of means and have no interval.')
    return notes
