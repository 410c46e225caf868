"""Short trainings on generated data, in process and as a command."""

import os

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests.helpers import fresh_processes
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import build, fcos, rcka

CLASSES = 6
STUDENT = fcos(num_classes=CLASSES, **{'test_cfg.score_thr': 0.0})
TEACHER = fcos(8, width=24, num_classes=CLASSES)  # needs projectors


def save_teacher(folder):
    """A checkpoint for ``TEACHER``: path."""
    path = folder / 'teacher.pth'
    if not path.exists():
        torch.save(dict(state_dict=build(TEACHER).state_dict()), path)
    return str(path)


def config(shapes, work_dir, teacher_ckpt, epochs=2, **changes):
    """A whole training config with a tiny distilled student."""
    cfg = Config.fromfile(ROOT / 'configs/fcos_r18_shapes.py')
    root = str(shapes)
    cfg.merge_from_dict(
        {
            'train_dataloader.dataset.data_root': root,
            'val_dataloader.dataset.data_root': root,
            'val_evaluator.ann_file': f'{root}/annotations/instances_val.json',
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader.num_workers': 0,
            'val_dataloader.persistent_workers': False,
            # MMEngine does not restore random states on resuming
            'train_dataloader.dataset.pipeline.2.prob': 0.0,
            'train_cfg.max_epochs': epochs,
            'train_cfg.val_interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'log_level': 'ERROR',
            'work_dir': str(work_dir),
        }
    )
    cfg.custom_hooks = []
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = cfg.val_evaluator
    cfg.model = dict(
        type='kd_ext.DetectionDistill',
        student=STUDENT,
        teacher=TEACHER,
        teacher_ckpt=teacher_ckpt,
        distill=dict(rcka=rcka()),
    )
    cfg.merge_from_dict(changes)
    cfg.experiment_name = f'test_{abs(hash(str(work_dir)))}'
    if 'visualizer' in cfg:
        # visualizers are shared by name: another training of this process would write into the first one's folder
        cfg.visualizer.name = cfg.experiment_name
    return cfg


def train(cfg):
    """Trains in this process: the runner."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def command(*args, timeout=280):
    """Runs a tool as a user would: the completed process, stdout and stderr as one text."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '200'}
    return fresh_processes.run(*args, env=env, one_stream=True, timeout=timeout)


def scored_alone(cfg, checkpoint):
    """Loads a checkpoint strictly into a plain detector and validates it.

    Args:
        cfg (Config): Of the plain detector.
        checkpoint (str | Path): Of a training that distilled.

    Returns:
        tuple: Metrics, and the predicted instances of each image.
    """
    cfg.model.init_cfg = None
    runner = Runner.from_cfg(cfg)
    runner.model.load_state_dict(torch.load(checkpoint)['state_dict'], strict=True)
    found, predict = [], runner.model.val_step

    def val_step(data):
        samples = predict(data)
        found.extend(sample.pred_instances for sample in samples)
        return samples

    runner.model.val_step = val_step
    return runner.val(), found
