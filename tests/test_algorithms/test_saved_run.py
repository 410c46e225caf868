"""What is taken over from a checkpoint: all on resuming; from another training what still belongs."""

import re

import pytest
import torch

from kd_ext.algorithms import saved_run
from kd_ext.class_means.stored import ClassMeans, save_class_means
from tests.helpers.short_trainings import config, save_teacher, train
from tests.helpers.tiny_detectors import build, distill, fcos, losses, rcka

ND = dict(type='kd_ext.NDLoss', at='embedding')


@pytest.fixture
def lines(monkeypatch):
    """What loading logs."""
    seen = []
    monkeypatch.setattr(saved_run, 'print_log', lambda text, *args: seen.append(text))
    return seen


def pair(**entries):
    """A model that has taken a step, and its state."""
    model = distill(**entries).train()
    losses(model)
    return model, model.state_dict()


def means_file(folder, name, seed):
    torch.manual_seed(seed)
    save_class_means(folder / name, ClassMeans(torch.rand(3, 16)))
    return str(folder / name)


def test_running_means_of_the_same_teacher_are_taken_over(lines):
    model, state = pair(nd=ND)
    again = distill(nd=ND)
    again.load_state_dict(state)
    assert not lines
    for key, value in model.distiller.class_means['regions'].state_dict().items():
        assert torch.equal(again.distiller.class_means['regions'].state_dict()[key], value) and bool(value.any())


def test_running_means_of_another_teacher_start_anew(lines):
    _, state = pair(nd=ND)
    other = distill(nd=ND, seed=1)
    other.load_state_dict(state)
    assert not other.distiller.class_means['regions'].means.any()
    assert len(lines) == 1 and 'start anew' in lines[0] and 'another teacher' in lines[0]
    assert torch.equal(other.student.backbone.conv1.weight, state['backbone.conv1.weight'])


def test_means_of_the_configured_file_stay(tmp_path, lines):
    one, two = (means_file(tmp_path, f'{seed}.pth', seed) for seed in (1, 2))
    _, state = pair(nd=dict(ND, class_means=one))
    same, other = (distill(nd=dict(ND, class_means=path)) for path in (one, two))
    same.load_state_dict(state)
    assert not lines
    before = other.distiller.class_means['file0'].means.clone()
    other.load_state_dict(state)
    assert torch.equal(other.distiller.class_means['file0'].means, before)
    assert len(lines) == 1 and 'class means of the file are kept' in lines[0]


def test_load_from_a_training_with_other_entries(lines):
    _, state = pair(rcka=rcka(), nd=ND)
    other = distill(rcka=rcka(), kd=dict(type='kd_ext.LogitKLLoss', at='logits'))
    result = other.load_state_dict(state)
    assert not result.missing_keys and not result.unexpected_keys
    assert len(lines) == 1 and 'nd (NDLoss at regions), rcka (RCKALoss at neck)' in lines[0]


def test_none_drops_an_entry():
    model = distill(rcka=rcka(), nd=None)
    assert list(model.distiller.terms) == ['rcka']
    with pytest.raises(ValueError, match='at least one named loss'):
        distill(nd=None)


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """A training of two steps an epoch, its log, and what its config needs."""
    folder = tmp_path_factory.mktemp('run')
    teacher = save_teacher(folder)
    cfg = configured(shapes, folder / 'first', teacher)
    cfg.merge_from_dict({'log_processor.window_size': 10, 'default_hooks.logger.interval': 2, 'log_level': 'INFO'})
    runner = train(cfg)
    return shapes, folder, teacher, runner


def configured(shapes, work_dir, teacher, epochs=1, **entries):
    cfg = config(shapes, work_dir, teacher, epochs=epochs)
    cfg.train_cfg.val_interval = 99
    cfg.model.distill = entries or dict(rcka=rcka(), nd=ND)
    return cfg


def test_shares_are_means_of_the_losses_window(trained):
    _, folder, _, runner = trained
    logged = next((folder / 'first').glob('*/vis_data/scalars.json')).read_text().splitlines()
    line = re.findall(r'"distill.share_(\w+)": ([\d.e-]+)', next(one for one in logged if 'share' in one))
    assert {name for name, _ in line} == {'rcka', 'nd'}
    for name, value in line:
        values, _ = runner.message_hub.get_scalar(f'train/distill.share_{name}').data
        assert len(values) == 2 and values[0] != values[1]
        assert float(value) == pytest.approx(values.mean(), rel=1e-3)


@pytest.mark.parametrize(
    'entries',
    [dict(rcka=rcka()), dict(rcka=rcka(), nd=ND, pkd=dict(type='mmrazor.PKDLoss', at='neck')), dict(nd=rcka())],
)
def test_resuming_with_other_entries_is_refused(trained, entries):
    shapes, folder, teacher, _ = trained
    cfg = configured(shapes, folder / 'second', teacher, 2, **entries)
    cfg.merge_from_dict(dict(resume=True, load_from=str(folder / 'first/epoch_1.pth')))
    with pytest.raises(ValueError, match=r'to resume.*nd \(NDLoss at regions\), rcka \(RCKALoss at neck\).*load_from'):
        train(cfg)


def test_resuming_a_plain_checkpoint_is_refused(trained):
    shapes, folder, teacher, _ = trained
    content = torch.load(folder / 'first/epoch_1.pth')
    content['state_dict'] = dict(content['state_dict'])
    torch.save(content, folder / 'plain.pth')
    cfg = configured(shapes, folder / 'third', teacher, 2)
    cfg.merge_from_dict(dict(resume=True, load_from=str(folder / 'plain.pth')))
    with pytest.raises(ValueError, match='to resume.*of a plain training.*load_from'):
        train(cfg)


def test_student_and_teacher_are_apart():
    student = build(fcos())
    model = dict(type='kd_ext.DetectionDistill', student=student, teacher=student, distill=dict(rcka=rcka()))
    from kd_ext.registry import MODELS

    with pytest.raises(ValueError, match='teacher to be a model of its own.*the student itself.*deepcopy'):
        MODELS.build(model)
    other = build(fcos(), seed=1)
    other.backbone = student.backbone
    for teacher in (other, dict(a=build(fcos()), b=other)):
        ckpt = dict.fromkeys('ab') if isinstance(teacher, dict) else None
        with pytest.raises(ValueError, match='shares backbone.conv1.weight with the student'):
            MODELS.build(dict(model, teacher=teacher, teacher_ckpt=ckpt))
    assert all(p.requires_grad for p in student.parameters())


def test_a_hook_that_trains_the_teacher_moves_nothing():
    model = distill().train()
    before = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    model.teacher.backbone.train()
    losses(model)
    assert all(torch.equal(value, before[key]) for key, value in model.teacher.state_dict().items())
    assert not any(module.training for module in model.teacher.modules())
