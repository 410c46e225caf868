"""A teacher that was trained, and the same one broken in every way."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub

from kd_ext.cli.check import leave_busy_cores
from kd_ext.data.labelled import class_names
from kd_ext.preflight import Preflight, compare_classes
from kd_ext.preflight.step_check import StepCheck
from kd_ext.preflight.teacher_score import TeacherScore, _untrained
from kd_ext.teachers.build import ONE
from kd_ext.teachers.class_map import ClassMap
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny

TEACHER = tiny.fcos(16, width=32, num_classes=training.CLASSES)
STUDENT = tiny.fcos(num_classes=training.CLASSES)


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """A teacher that knows the eight images by heart: its checkpoint."""
    folder = tmp_path_factory.mktemp('teacher')
    cfg = training.config(shapes, folder, None, epochs=120)
    cfg.model = copy.deepcopy(TEACHER)
    for part in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[part] = None
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint.interval = 1000
    runner = training.train(cfg)
    runner.save_checkpoint(str(folder), 'teacher.pth')
    return folder / 'teacher.pth'


def config(shapes, folder, checkpoint, teacher=TEACHER, **distill):
    """A distillation whose validation images are those of the training."""
    cfg = training.config(shapes, folder, str(checkpoint))
    cfg.val_dataloader.dataset.ann_file = cfg.train_dataloader.dataset.ann_file
    cfg.model = Config(
        dict(
            model=dict(
                type='kd_ext.DetectionDistill',
                student=STUDENT,
                teacher=teacher,
                teacher_ckpt=str(checkpoint),
                distill=distill or dict(rcka=tiny.rcka(), nd=dict(type='kd_ext.NDLoss', at='embedding')),
            )
        )
    ).model
    return cfg


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def findings(cfg):
    return Preflight(cfg, tiny.build(cfg.model), images=8).run()


def changed(**preprocessor):
    teacher = copy.deepcopy(TEACHER)
    teacher.data_preprocessor.update(preprocessor)
    return teacher


@pytest.mark.slow
def test_a_good_teacher(shapes, trained, tmp_path, capsys):
    found = findings(config(shapes, tmp_path, trained))
    assert not any(one.fatal for one in found), found
    shown = capsys.readouterr().out
    for part in ('matches', 'rcka', 'as configured', 'gradient norm', 'student alone', 'added parameters'):
        assert part in shown


@pytest.mark.slow
def test_random_weights(shapes, tmp_path):
    path = tmp_path / 'random.pth'
    torch.save(dict(state_dict=tiny.build(TEACHER).state_dict()), path)
    found = findings(config(shapes, tmp_path, path))
    assert any(one.fatal and 'does not know these images' in one.text for one in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    'broken',
    [dict(bgr_to_rgb=False), dict(std=[1.0, 1.0, 1.0]), dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])],
)
def test_other_inputs(shapes, trained, tmp_path, broken):
    found = findings(config(shapes, tmp_path, trained, changed(**broken)))
    assert any(
        'does better with other inputs' in one.text and 'RGB, mean and std of torchvision' in one.text for one in found
    ), found


@pytest.mark.slow
@pytest.mark.parametrize(
    'classes,fatal,text',
    [
        ('square disk triangle star ring cross', True, 'square, disk'),
        ('cat dog cow sheep horse bird', True, '0 of the student'),
    ],
)
def test_other_classes(shapes, trained, tmp_path, classes, fatal, text):
    content = torch.load(trained, weights_only=False)
    content['meta']['dataset_meta'] = dict(classes=tuple(classes.split()))
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    kl = dict(type='kd_ext.LogitKLLoss', at='logits')
    cfg = config(shapes, tmp_path, path, kl=kl)
    found = list(Preflight(cfg, tiny.build(cfg.model), images=1).classes())
    assert [one.fatal for one in found] == [fatal] and text in found[0].text
    assert 'kl compare class by class' in found[0].text
    cfg = config(shapes, tmp_path, path, rcka=tiny.rcka(), nd=dict(type='kd_ext.NDLoss', at='embedding'))
    found = list(Preflight(cfg, tiny.build(cfg.model), images=1).classes())
    assert not found[0].fatal and 'do not compare classes' in found[0].text
    cfg.model.classes = dict(student=class_names(cfg))
    found = Preflight(cfg, tiny.build(cfg.model), images=1).run()
    texts = [
        one.text for one in found if 'mapped by name' in one.text or 'holds a class that the teacher knows' in one.text
    ]
    assert len(texts) == 1 + ('cat' in classes)


def test_class_lists():
    names = ['a', 'b']
    assert not list(compare_classes(names, ClassMap(None, names), ['kl']))
    assert not list(compare_classes(names, ClassMap(names, names), ['kl']))
    (found,) = compare_classes(names, ClassMap(), [])
    assert not found.fatal and 'names no classes' in found.text
    (found,) = compare_classes(names, ClassMap(None, ['b', 'c', 'd']), ['kl'])
    assert found.fatal and "1 of the student's 2" in found.text
    assert 'classes=dict(student=[...])' in found.text
    (found,) = compare_classes(names, ClassMap(names, ['b', 'c', 'd']), ['kl'])
    assert not found.fatal and 'mapped by name' in found.text
    (found,) = compare_classes(names, ClassMap(['a', 'c'], names), [])
    assert found.fatal and 'not what the training data has' in found.text


def test_swapped_student_and_teacher(shapes, tmp_path):
    cfg = config(shapes, tmp_path, 'random', teacher=tiny.fcos(2, num_classes=training.CLASSES))
    model = tiny.build(cfg.model)
    text = (
        f'The teacher has {parameters(model.teacher):,} parameters and '
        f'the student {parameters(model.student):,}: are they swapped?'
    )
    flight = Preflight(cfg, model, images=1)
    for found in (flight.sizes(), flight.short()):  # the tool, a training
        assert [one.text for one in found if one.text == text] == [text]


@pytest.mark.parametrize(
    'weight,text,fatal', [(1e4, 'dwarfs the task', False), (1e-7, 'raise its loss_weight', False)]
)
def test_terms_too_large_and_too_small(weight, text, fatal):
    model = tiny.distill(rcka=tiny.rcka(loss_weight=weight)).train()
    found = list(StepCheck(model, tiny.batch()).findings())
    assert [one.fatal for one in found] == [fatal] and text in found[0].text


def test_step_is_measured():
    model = tiny.distill(rcka=tiny.rcka(), off=tiny.rcka(loss_weight=0.0))
    step = StepCheck(model.train(), tiny.batch())
    rows = {name: row for name, *row in step.rows()}
    assert rows['rcka'][0] > 0 and rows['rcka'][2] > 0
    assert rows['off'] == [0, 0, 0]
    assert sum(row[1] for row in rows.values()) == pytest.approx(1)
    assert [one.text for one in step.findings()] == [
        'off has a loss_weight of 0 and teaches nothing: raise it, or leave the entry out.'
    ]
    costs = step.costs()
    assert list(costs) == ['student alone', 'distilled']
    assert all(seconds > 0 and (memory is None or memory >= 0) for seconds, memory in costs.values())


def test_time_that_the_teacher_takes_is_bounded(shapes, tmp_path):
    cfg = config(shapes, tmp_path, 'random')
    model = tiny.build(cfg.model)
    flight = Preflight(cfg, model, images=6)
    images = [
        len(TeacherScore(model, ONE, flight.batches, ClassMap(), seconds=seconds).configured)
        for seconds in (0.0, 100.0)
    ]
    assert images == [2, 6]
    score = TeacherScore(model, ONE, flight.batches, ClassMap(), seconds=0.0)
    assert len(score.batches) == len(score.untrained) == 2
    assert {len(losses) for losses in score.others.values()} == {2}


@pytest.mark.parametrize('cores,load,threads', [(8, 0.2, 4), (8, 5.8, 2), (2, 7.5, 1), (8, 3.6, 4)])
def test_busy_cores_are_left_alone(monkeypatch, cores, load, threads):
    chosen = []
    monkeypatch.setattr(os, 'cpu_count', lambda: cores)
    monkeypatch.setattr(os, 'getloadavg', lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 4)
    monkeypatch.setattr(torch, 'set_num_threads', chosen.append)
    leave_busy_cores()
    assert chosen == [threads]


def test_every_part_says_what_it_took(shapes, tmp_path, capsys):
    cfg = config(shapes, tmp_path, 'random')
    flight = Preflight(cfg, tiny.build(cfg.model), images=2)
    flight.run()
    *parts, (last, total) = flight.watch.rows()
    assert [name for name, _ in parts] == [
        'reading the images',
        "the teacher's own loss",
        'the terms of a step',
        'the cost of a step',
    ]
    assert last == 'in all'
    assert total >= sum(seconds for _, seconds in parts) > 0
    shown = capsys.readouterr().out
    assert all(f'│ {name}' in shown for name, _ in [*parts, (last, total)])


@pytest.mark.slow
def test_the_tool_and_its_status(shapes, trained, tmp_path):
    for checkpoint, status, text in ((trained, 0, 'Ready to train.'), (None, 1, 'would be pointless')):
        if checkpoint is None:
            checkpoint = tmp_path / 'random.pth'
            torch.save(dict(state_dict=tiny.build(TEACHER).state_dict()), checkpoint)
        path = tmp_path / 'check.py'
        config(shapes, tmp_path, checkpoint).dump(path)
        done = training.command('tools/check.py', path)
        assert done.returncode == status and text in done.stdout, done.stdout
        assert 'Traceback' not in done.stdout


def test_a_plain_config_is_refused(shapes, tmp_path):
    done = training.command('tools/check.py', 'configs/fcos_r18-quarter_shapes.py')
    assert done.returncode == 1
    assert 'Expected config to be one that distills' in done.stdout


def annotations(cfg, split, tmp_path, keep):
    """Has a split read a copy of its annotation file that ``keep`` has changed."""
    dataset = cfg[f'{split}_dataloader'].dataset
    content = json.loads((Path(dataset.data_root) / dataset.ann_file).read_text())
    keep(content)
    (tmp_path / f'{split}.json').write_text(json.dumps(content))
    dataset.ann_file = str(tmp_path / f'{split}.json')


@pytest.mark.parametrize('count', [0, 1])
def test_few_annotated_images(shapes, tmp_path, count):
    cfg = config(shapes, tmp_path, 'random')
    annotations(cfg, 'val', tmp_path, lambda one: one.update(annotations=one['annotations'][-count:][:count]))
    flight = Preflight(cfg, tiny.build(cfg.model), images=3)
    assert len(flight.batches) == (1 if count else 3)  # without any, those of the training
    assert flight.step().values['rcka'] >= 0


def test_classes_that_match_no_category(shapes, tmp_path):
    cfg = config(shapes, tmp_path, 'random')
    model = tiny.build(cfg.model)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=('cat', 'dog'))
    with pytest.raises(ValueError, match=r'train_dataloader .*metainfo\.classes'):
        Preflight(cfg, model)


def test_fewer_classes_in_the_head_than_in_the_data(shapes, tmp_path):
    cfg = config(shapes, tmp_path, 'random')
    cfg.model.student = tiny.fcos(num_classes=5)
    with pytest.raises(ValueError, match='num_classes of bbox_head .*at least 6.*but got 5'):
        Preflight(cfg, tiny.build(cfg.model))


def test_a_student_that_fails_without_distillation(monkeypatch):
    model = tiny.distill().train()
    monkeypatch.setattr(type(model.student), 'loss', lambda *args: 1 / 0)
    with pytest.raises(ValueError, match='student FCOS .*without distillation.*ZeroDivisionError'):
        StepCheck(model, tiny.batch())


def test_a_fault_of_the_distillation_stays_one(monkeypatch):
    model = tiny.distill().train()
    monkeypatch.setattr(type(model.distiller), 'forward', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        StepCheck(model, tiny.batch())


def test_augmentations_of_batches_are_left_as_they_were(shapes, tmp_path):
    resize = dict(type='BatchSyncRandomResize', random_size_range=(96, 128), size_divisor=32, interval=1)
    cfg = config(shapes, tmp_path, 'random')
    cfg.model.student.data_preprocessor = dict(cfg.model.student.data_preprocessor, batch_augments=[resize])
    MessageHub.get_current_instance().runtime_info.pop('iter', None)
    model = tiny.build(cfg.model)
    flight = Preflight(cfg, model, images=1)
    flight.short()
    flight.step()
    (augment,) = model.data_preprocessor.batch_augments
    assert augment._input_size is None  # not that of the small images looked at


def test_wrapped_images_are_small_too(shapes, tmp_path):
    cfg = config(shapes, tmp_path, 'random')
    pipeline = cfg.val_dataloader.dataset.pipeline
    cfg.val_dataloader.dataset.pipeline = [pipeline[0], dict(type='Resize', scale=(64, 64)), *pipeline[1:]]
    cfg.val_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=cfg.val_dataloader.dataset)
    text = cfg.pretty_text
    flight = Preflight(cfg, tiny.build(cfg.model), images=1, size=32)
    assert max(flight.batches[0]['inputs'][0].shape) == 32
    assert cfg.pretty_text == text


def test_an_untrained_network_whose_maps_end_in_one_pixel():
    teacher = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.BatchNorm2d(4))
    teacher.init_weights = lambda: None
    untrained = _untrained(teacher)
    assert untrained(torch.rand(1, 3, 3, 3)).shape == (1, 4, 1, 1)
    maps = untrained(torch.rand(1, 3, 9, 9) * 100)
    torch.testing.assert_close(maps.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
