"""The common detectors of docs/coverage.md train from mmdet's own configs, through the command."""

import pytest

from tests.helpers import detector_zoo as zoo
from tests.helpers.stock_configs import train_stock


@pytest.mark.slow
@pytest.mark.parametrize('name', zoo.CONFIGS)
def test_a_stock_config_trains_through_the_command(name, shapes, stock_coco, tmp_path, monkeypatch):
    runner, method, looked = train_stock(name, shapes, stock_coco, tmp_path, monkeypatch)
    assert looked == [None]
    log = runner.message_hub.log_scalars
    assert runner.iter >= 1 and log[f'train/distill.loss_{method}'].current() > 0 and log['train/loss'].current() > 0
