"""NC1 to NC3 in the log of short trainings, which go on as without them."""

import json

import pytest
import torch
from mmengine.runner import Runner

from kd_ext.analysis.neural_collapse import measure
from kd_ext.analysis.neural_collapse.hook import NeuralCollapseHook
from kd_ext.class_means.moments import Moments
from tests.helpers import class_means_by_hand as by_hand
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny

HOOK = dict(type='kd_ext.NeuralCollapseHook', max_images=3)
NAMES = ('nc/nc1', 'nc/nc2', 'nc/nc3')


def config(shapes, folder, hooks=(HOOK,), **changes):
    cfg = training.config(shapes, folder, 'random', custom_hooks=list(hooks), **{'randomness.seed': 3, **changes})
    cfg.train_dataloader.dataset.pipeline[2].prob = 0.5
    cfg.visualizer.name = str(folder)  # else one for all runs of a process
    return cfg


def logged(folder):
    """What the validations put into the visualizer's file."""
    (path,) = folder.glob('*/vis_data/scalars.json')
    rows = map(json.loads, path.read_text().splitlines())
    return [row for row in rows if 'coco/bbox_mAP' in row]


def by_loops(model, shapes, indices=(0, 1, 2)):
    """The measures of an FCOS on validation images."""
    moments, model = Moments(6, 16), model.eval()
    for index, (path, boxes, labels) in enumerate(by_hand.coco_images(shapes, 'val')):
        if index in indices and len(boxes):
            inputs, _, _ = by_hand.picture(path)
            moments.add(*by_hand.fcos_regions(model, inputs, boxes, labels))
    rows = model.bbox_head.conv_cls.weight[:, :, 1, 1]
    return measure(moments, rows)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['distilled', 'plain'])
def test_logged_and_nothing_else_changes(shapes, tmp_path, kind):
    runs = {}
    for name, hooks in (('with', [HOOK]), ('without', [])):
        cfg = config(shapes, tmp_path / name, hooks)
        if kind == 'plain':
            cfg.model = training.STUDENT
        runs[name] = training.train(cfg)
        runs[f'{name} state'] = torch.get_rng_state()
    assert torch.equal(runs['with state'], runs['without state'])
    weights = [runs[name].model.state_dict() for name in ('with', 'without')]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    rows, plain = logged(tmp_path / 'with'), logged(tmp_path / 'without')
    assert len(rows) == len(plain) == 2
    for row, other in zip(rows, plain):
        assert all(row[name] >= 0 for name in NAMES)
        for timing in ('data_time', 'time'):
            other.pop(timing)
        assert other.items() <= row.items()
        assert not any(name in other for name in NAMES)

    model = runs['with'].model
    found = by_loops(getattr(model, 'student', model), shapes)
    for name in NAMES:
        assert rows[-1][name] == pytest.approx(getattr(found, name[3:]), rel=1e-4)


@pytest.mark.slow
def test_interval_and_averaged_weights(shapes, tmp_path):
    ema = dict(type='EMAHook', momentum=0.5)
    cfg = config(shapes, tmp_path, [dict(HOOK, interval=2), ema], **{'train_cfg.max_epochs': 3})
    runner = training.train(cfg)
    rows = logged(tmp_path)
    assert ['nc/nc1' in row for row in rows] == [True, False, True]
    averaged = tiny.build(training.STUDENT)
    averaged.load_state_dict(torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['state_dict'])
    found = by_loops(averaged, shapes)
    assert rows[-1]['nc/nc1'] == pytest.approx(found.nc1, rel=1e-4)
    assert rows[-1]['nc/nc1'] != pytest.approx(by_loops(runner.model.student, shapes).nc1, rel=1e-4)


@pytest.mark.slow
def test_under_ddp(shapes, tmp_path):
    cfg = config(shapes, tmp_path / 'work', **{'train_cfg.max_epochs': 1, 'log_level': 'INFO'})
    cfg.dump(tmp_path / 'config.py')
    done = training.command(
        '-m',
        'torch.distributed.run',
        '--nproc_per_node=2',
        '--master_port=29543',
        'tools/train.py',
        tmp_path / 'config.py',
        '--launcher',
        'pytorch',
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (row,) = logged(tmp_path / 'work')
    assert all(row[name] >= 0 for name in NAMES)


def test_too_few_classes_are_a_warning(shapes, tmp_path, caplog):
    cfg = config(shapes, tmp_path, [dict(HOOK, max_images=1)])
    cfg.val_dataloader.dataset.indices = 1
    cfg.model = training.STUDENT
    runner = Runner.from_cfg(cfg)
    hook = next(one for one in runner.hooks if isinstance(one, NeuralCollapseHook))
    hook.before_run(runner)
    runner.model.train()
    with torch.no_grad():  # and diverged weights
        runner.model.bbox_head.cls_convs[0].conv.weight.fill_(float('nan'))
    hook.after_val_epoch(runner)
    assert not any('nc/' in key for key in runner.message_hub.log_scalars)
    assert runner.model.training


def test_what_is_wrong_shows_before_the_training(shapes, tmp_path):
    with pytest.raises(ValueError, match='NeuralCollapseHook.interval.*0'):
        NeuralCollapseHook(interval=0)
    cfg = config(shapes, tmp_path)
    cfg.model = training.STUDENT
    cfg.model['bbox_head']['num_classes'] = 4
    runner = Runner.from_cfg(cfg)
    cfg.model['bbox_head']['num_classes'] = 6
    with pytest.raises(ValueError, match='the 4 of FCOSHead, but got 6'):
        runner.call_hook('before_run')
