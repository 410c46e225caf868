"""The teacher in the box: whole, as declared, and refused when it is not."""

import csv
import json
import shutil

import pytest
import torch

from demo import teacher_box
from demo.quickstart import Quickstart, parse_args
from demo.teacher_box import BOX, LARGEST, halved, read, recipe, write_log
from kd_ext.teachers.build import build_teacher
from tests.helpers.data_sets import ROOT


@pytest.fixture
def box(tmp_path):
    return shutil.copytree(BOX, tmp_path / 'teacher')


def test_it_is_small_and_good():
    facts, weights = read()
    assert facts['bytes'] == weights.stat().st_size <= LARGEST
    assert facts['metrics']['coco/bbox_mAP'] >= 0.65 and facts['licence'] == 'Apache-2.0'
    state = torch.load(weights, weights_only=True)['state_dict']
    assert {value.dtype for value in state.values()} == {torch.float16, torch.int64}


def test_it_is_what_its_command_trains(tmp_path):
    facts, _ = read()
    run = Quickstart(parse_args(['--train-teacher', '--work-dir', str(tmp_path)]))
    training, declared = run.teacher_training(), run.declared.teacher
    assert facts['recipe'] == recipe(training.cfg)
    assert facts['data'] == run.declared.data['generator']
    assert (facts['config'], facts['epochs'], facts['seed']) == (declared.config, declared.epochs, declared.seed)
    assert '--train-teacher' in facts['command']


def test_recipe_knows_what_is_learned_and_no_places(tmp_path):
    cfg = Quickstart(parse_args(['--work-dir', str(tmp_path)])).teacher_training().cfg
    known = recipe(cfg)
    cfg.train_dataloader.dataset.data_root = '/elsewhere/'
    cfg.work_dir = '/elsewhere/'
    assert recipe(cfg) == known
    cfg.optim_wrapper.optimizer.lr = 0.1
    assert recipe(cfg) != known


def test_every_key_is_a_weight_of_the_model():
    facts, weights = read()
    teacher = build_teacher(str(ROOT / facts['config']), str(weights))
    state = torch.load(weights, weights_only=True)['state_dict']
    own = teacher.state_dict()
    assert set(own) == set(state) and all(torch.equal(own[name].half(), state[name].half()) for name in own)
    assert {value.dtype for value in own.values()} == {torch.float32, torch.int64}
    assert facts['parameters'] == sum(value.numel() for value in teacher.parameters())


def test_its_log_ends_with_its_score():
    facts, _ = read()
    with open(BOX / 'training.csv') as file:
        rows = [*csv.DictReader(file)]
    assert int(rows[-1]['epoch']) == facts['epochs'] and float(rows[-1]['loss']) < float(rows[0]['loss'])
    assert abs(float(rows[-1]['coco/bbox_mAP']) - facts['metrics']['coco/bbox_mAP']) < 0.03


def test_changed_weights_are_refused(box):
    with open(box / 'teacher.pth', 'r+b') as file:
        file.seek(1000)
        file.write(b'?')
    with pytest.raises(ValueError, match=r'sha256 of .*teacher\.pth.*--train-teacher'):
        read(box)


def test_cut_weights_are_refused_with_their_size(box):
    with open(box / 'teacher.pth', 'r+b') as file:
        file.truncate(1234)
    with pytest.raises(ValueError, match=r'1,234 bytes.*git checkout'):
        read(box)


@pytest.mark.parametrize('name', ['teacher.json', 'teacher.pth'])
def test_missing_file_is_named(box, name):
    (box / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf'no {name}.*--train-teacher'):
        read(box)


def checkpoint(path, **state):
    torch.save(
        dict(meta=dict(dataset_meta=dict(classes=('a',)), cfg='secret = 1'), state_dict=state, optimizer={}), path
    )
    return path


def test_halved_keeps_weights_and_classes_alone(tmp_path):
    found = halved(checkpoint(tmp_path / 'a.pth', w=torch.tensor([0.1, 2.0]), n=torch.tensor(7)))
    assert found == dict(meta=dict(dataset_meta=dict(classes=('a',))), state_dict=found['state_dict'])
    assert found['state_dict']['w'].dtype == torch.float16 and found['state_dict']['n'].dtype == torch.int64


def test_weight_beyond_half_precision(tmp_path):
    with pytest.raises(ValueError, match='Expected w to be finite in half precision, but got 1e'):
        halved(checkpoint(tmp_path / 'a.pth', w=torch.tensor([1.0, 1e6])))


def test_log_is_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_box, 'EVERY', 20)
    folder = tmp_path / '20260101_000000/vis_data'
    folder.mkdir(parents=True)
    values = dict(lr=0.1, loss=1.0, loss_cls=0.5, loss_bbox=0.25, loss_centerness=0.25)
    lines = [dict(values, epoch=1 + step // 50, step=step) for step in range(10, 90, 10)]
    lines += [{'coco/bbox_mAP': 0.1, 'step': 1}, {'coco/bbox_mAP': 0.2, 'step': 2}]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    write_log(tmp_path, 'coco/bbox_mAP', tmp_path / 'out.csv')
    rows = (tmp_path / 'out.csv').read_text().splitlines()
    assert rows[0] == 'epoch,step,lr,loss,loss_cls,loss_bbox,loss_centerness,coco/bbox_mAP'
    assert [row.split(',')[1] for row in rows[1:]] == ['20', '40', '60', '80']
    assert [row.rpartition(',')[2] for row in rows[1:]] == ['', '0.1', '', '0.2']
