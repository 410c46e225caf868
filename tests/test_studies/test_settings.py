"""Every declared setting: read, refused where it is wrong, and built."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from kd_ext import distill_entries
from studies import setting
from studies.cells import Cell, Choice, cell_digest, entries, make_config, trials
from studies.data import place
from studies.run import main
from tests.helpers.tiny_detectors import build

WANTED = ['all_labels', 'few_labels', 'few_labels_many_images', 'look_alike', 'other_family', 'photographs']
CONTROLS = ['kl', 'pkd', 'cwd', 'reviewkd']
OURS = ['rcka', 'nd', 'nckd', 'lipschitz', 'kdpp', 'reviewkdpp', 'mix']
ARMS = ['alone', 'alone_x3', *CONTROLS, *OURS]
DATA = Path('/data')


def teacher_files(declared, folder):
    cfg = make_config(declared, Cell(None, 0), DATA, None)
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', 'random'


def first(arm):
    return Choice(next(iter(arm.recipes())), 0.3 if arm.searched else None)


def test_all_settings_of_the_protocol_are_declared():
    assert set(WANTED) <= set(setting.names())


# logits are compared anchor by anchor: RetinaNet has nine of them, its teacher FCOS none
WITHOUT = dict(other_family=('kl', 'kdpp'))


@pytest.mark.parametrize('name', WANTED)
def test_a_setting_is_complete(name):
    declared = setting.load(name)
    assert set(ARMS) - set(WITHOUT.get(name, ())) <= set(declared.arms)
    assert len(declared.seeds) == 5 and declared.search.shares == [0.1, 0.3, 0.6] and len(declared.search.seeds) == 2
    assert (declared.gate.points, declared.gate.deviations, declared.gate.controls) == (8, 4, 2)
    generator = declared.data.get('generator')
    if generator:
        assert generator['val'] >= 1000 and generator['tuning'] > 0


def test_a_default_arm_is_what_the_command_gives(tmp_path):
    declared = setting.load('few_labels')
    arm = declared.arms['rcka_default']
    assert not arm.searched and declared.arms[arm.default_of].searched
    cfg = make_config(declared, Cell(arm, 0), DATA, teacher_files(declared, tmp_path))
    assert cfg.model.distill.to_dict() == distill_entries(['rcka'], choose_weights=True)


def test_a_default_arm_needs_the_arm_that_it_is_compared_with(tmp_path):
    text = (setting.HERE / 'few_labels.yml').read_text().replace(' rcka,', '', 1)
    (tmp_path / 'other.yml').write_text(text)
    with pytest.raises(ValueError, match="default_of of rcka_default.*'rcka'"):
        setting.load(tmp_path / 'other.yml')


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', [name for name in setting.names() if name not in ('all_labels', 'few_labels_many_images')]
)
def test_every_arm_can_be_built(name, tmp_path):
    """Teacher and student of full size, with the entries of all arms in one model.

    The two that are left out have the student of ``few_labels``.
    """
    declared = setting.load(name)
    files = teacher_files(declared, tmp_path)
    everything, cfg = {}, None
    for arm in declared.arms.values():
        for variant in arm.recipes():
            cell = Cell(arm, 0, replace(first(arm), variant=variant))
            if arm.distils:
                cfg = make_config(declared, cell, DATA, files)
                everything.update(cfg.model.distill)
    plain = make_config(declared, Cell(declared.arms['alone'], 0), DATA, None).model
    assert plain.type != 'kd_ext.DetectionDistill'
    cfg.model.distill = everything
    model = build(cfg.model)
    assert set(model.distiller.terms) == set(everything)
    if name in WANTED:
        wanted = {'kd', 'pkd', 'cwd', 'reviewkd', 'rcka', 'nd', 'nckd', 'lipschitz'}
        own = {key for arm in declared.arms.values() for key in arm.entries or ()}
        assert set(everything) == (wanted - {'kd'} if name in WITHOUT else wanted) | own
    # the student of a seed starts from the same weights with and without a teacher
    state, alone = model.student.state_dict(), build(plain).state_dict()
    assert state.keys() == alone.keys() and all(torch.equal(state[key], alone[key]) for key in alone)


def test_few_labels_are_few():
    declared = setting.load('few_labels')
    cfg = make_config(declared, Cell(declared.arms['alone'], 3), DATA, None)
    assert cfg.train_dataloader.dataset.indices == 200 and cfg.train_dataloader.batch_size == 16  # 13 iterations
    assert cfg.train_cfg.max_epochs == 60 and cfg.randomness.seed == 3
    longer = make_config(declared, Cell(declared.arms['alone_x3'], 3), DATA, None)
    assert longer.train_cfg.max_epochs == 180
    assert [one.T_max for one in longer.param_scheduler if 'T_max' in one] == [180]
    teacher = make_config(declared, Cell(None, 0), DATA, None)
    assert teacher.train_cfg.max_epochs == 8 and 'indices' not in teacher.train_dataloader.dataset


def test_splits_of_a_cell():
    """Validated on the tuning split, tested on what the cell is for, trained on neither."""
    declared = setting.load('few_labels')
    arm = declared.arms['pkd']
    for cell in (Cell(arm, 0, first(arm)), next(iter(trials(declared, arm).values()))[0]):
        cfg = make_config(declared, cell, DATA, ('t.py', 't.pth'))
        assert cfg.train_dataloader.dataset.ann_file.endswith('train.json')
        assert cfg.val_dataloader.dataset.ann_file.endswith('tuning.json')
        assert cfg.val_evaluator.ann_file.endswith('tuning.json')
        wanted = {'test': 'val.json', 'tuning': 'tuning.json'}[cell.split]
        assert cfg.test_dataloader.dataset.ann_file.endswith(wanted)
        assert cfg.test_evaluator.ann_file.endswith(wanted)
        assert cfg.default_hooks.checkpoint.save_best is None


def test_same_search_for_every_method():
    declared = setting.load('few_labels')
    for arm in declared.arms.values():
        if not arm.searched:
            continue
        tries = trials(declared, arm)
        assert {choice.share for choice in tries} == {0.1, 0.3, 0.6}
        assert all([cell.seed for cell in cells] == [100, 101] for cells in tries.values())


def test_shares_become_balances():
    arms = setting.load('few_labels').arms
    # p = 0.6 of the loss is 1.5 times the task loss, halved between two terms
    assert entries(arms['pkd'], Choice('', 0.6))['pkd']['balance'] == 1.5
    assert [one['balance'] for one in entries(arms['kdpp'], Choice('', 0.6)).values()] == [0.75, 0.75]
    assert 'balance' not in entries(arms['pkd_w6'], Choice())['pkd']


def test_digest_follows_what_is_declared():
    declared = setting.load('few_labels')
    arm = declared.arms['pkd_w6']
    cell = Cell(arm, 0)

    def digest(declared, cell, data=DATA, teacher='a', folder='/cells/t'):
        cfg = make_config(declared, cell, data, (Path(folder, 'config.py'), Path(folder, 'epoch_8.pth')))
        return cell_digest(declared, cell, cfg, data, dict(folder=folder, digest=teacher))

    base = digest(declared, cell)
    assert base == digest(declared, cell, data=Path('/elsewhere'), folder='/other/t')  # places do not count
    assert base != digest(declared, cell, teacher='b')
    assert base != digest(declared, replace(cell, seed=1))
    assert base != digest(declared, replace(cell, arm=replace(arm, changes={'pkd': {'loss_weight': 5.0}})))
    other = copy.deepcopy(declared.data)
    other['generator']['seed'] = 1
    assert base != digest(replace(declared, data=other), cell)
    alone = Cell(declared.arms['alone'], 0)
    assert digest(declared, alone) == digest(declared, alone, teacher='b')


@pytest.mark.parametrize(
    'change,said',
    [
        ({'seed': [0]}, 'seeds'),
        ({'arms': ['alone', 'pdk']}, 'pkd'),
        ({'arms': ['pkd']}, 'baseline'),
        ({'search': {'shares': [0.1], 'seeds': [0]}}, 'search.seeds'),
        ({'search': {'shares': [1.0], 'seeds': [100]}}, 'between 0 and 1'),
        ({'teacher': {'config': 'x.py'}}, 'epochs'),
        ({'data': {'root': 'X', 'generator': {}}}, 'either'),
        ({'data': {'root': 'X', 'splits': {'train': 'a'}}}, 'tuning'),
    ],
)
def test_wrong_declarations(change, said, tmp_path):
    content = yaml.safe_load((setting.HERE / 'few_labels.yml').read_text())
    path = tmp_path / 'mine.yml'
    path.write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(ValueError, match=said):
        setting.load(path)


@pytest.mark.parametrize(
    'args,said',
    [
        (['few_label'], 'few_labels'),
        (['few_labels', '--arms', 'rkca'], 'rcka'),
        (['few_labels', '--seeds', '7'], '0, 1, 2, 3, 4'),
        (['photographs'], 'BCCD_ROOT'),
    ],
)
def test_wrong_calls(args, said, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv('BCCD_ROOT', raising=False)
    assert main([*args, '--work-dir', str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_setting_that_waits_does_not_run(tmp_path, capsys):
    content = yaml.safe_load((setting.HERE / 'few_labels.yml').read_text())
    (tmp_path / 'later.yml').write_text(yaml.safe_dump(dict(content, waits='Its data are not there yet.')))
    assert main([str(tmp_path / 'later.yml'), '--work-dir', str(tmp_path)]) == 2
    assert 'Its data are not there yet.' in capsys.readouterr().err


def test_a_root_without_a_split(tmp_path, monkeypatch):
    from studies.data import prepare

    monkeypatch.setenv('BCCD_ROOT', str(tmp_path))
    declared = setting.load('photographs')
    assert place(declared, tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match='train split of photographs'):
        prepare(declared, tmp_path)
