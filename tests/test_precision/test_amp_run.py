"""``tools/train.py --amp`` on a CPU: it trains, and saves a plain student."""

import math

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_ext.cli.config import enable_amp
from kd_ext.recipes import distill_entries
from tests.helpers import short_trainings as training
from tests.helpers.tiny_detectors import build


class Terms(Hook):
    """Every value that a training logs."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.seen.append({key: float(value) for key, value in outputs.items()})


@pytest.mark.slow
def test_trains(shapes, tmp_path):
    cfg = training.config(shapes, tmp_path / 'work', training.save_teacher(tmp_path), epochs=1)
    cfg.model.distill = distill_entries(['rcka', 'reviewkd', 'lipschitz', 'kd++', 'nckd'])
    enable_amp(cfg)
    runner, terms = Runner.from_cfg(cfg), Terms()
    runner.register_hook(terms)
    runner.train()
    assert len(terms.seen) == 2  # 8 images, 4 in a batch
    assert all(math.isfinite(value) for step in terms.seen for value in step.values())
    state = torch.load(tmp_path / 'work/epoch_1.pth')['state_dict']
    assert all(value.dtype == torch.float32 for value in state.values() if value.is_floating_point())
    build(training.STUDENT).load_state_dict(state, strict=True)
