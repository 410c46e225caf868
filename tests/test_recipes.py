"""Methods by name, on configs that nobody edited."""

import pytest
from mmengine.config import Config

from kd_ext import distill_config, distill_entries
from kd_ext.recipes import METHODS, SHARE, SHARES, STEPS
from tests.helpers import short_trainings as training
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import build, fcos, losses

CONFIG = ROOT / 'configs' / 'fcos_r18-quarter_shapes.py'
TEACHER = str(ROOT / 'configs' / 'fcos_r18-half_shapes.py')


@pytest.mark.parametrize('method', METHODS)
def test_every_method_builds_and_steps(method):
    cfg = distill_config(Config.fromfile(CONFIG), TEACHER, 'random', [method])
    model = build(cfg.model)
    terms = losses(model)
    assert {key for key in terms if key.startswith('distill.loss_')}
    assert all(key in terms for key in ('student.loss_cls',))


def test_factors_and_several():
    entries = distill_entries(['rcka:0.5', 'nd:1.5', 'nckd'])
    assert list(entries) == ['rcka', 'nd', 'nckd']
    assert entries['rcka']['loss_weight'] == 5
    assert entries['nd']['loss_weight'] == 1.5
    # the next one asks for the usual weight
    assert distill_entries(['rcka'])['rcka']['loss_weight'] == 10


def test_without_a_factor_a_method_chooses_its_weight():
    cfg = distill_config(Config.fromfile(CONFIG), TEACHER, 'random', ['rcka', 'nd:1', 'kd@teacher'])
    balances = {name: entry.get('balance') for name, entry in cfg.model.distill.items()}
    assert balances == dict(
        rcka=dict(share=SHARES['rcka'], steps=STEPS),
        nd=None,
        kd_teacher=dict(share=SHARES.get('kd', SHARE), steps=STEPS),
    )
    # recipes keep the published weights
    assert all('balance' not in entry for entry in distill_entries(list(METHODS)[:3]).values())


def test_several_teachers():
    entries = distill_entries(['rcka:0.5@big', 'rcka@other', 'kd++@big'])
    assert {name: entry['teacher'] for name, entry in entries.items()} == dict(
        rcka_big='big', rcka_other='other', kd_big='big', nd_big='big'
    )
    assert entries['rcka_big']['loss_weight'] == 5
    cfg = distill_config(
        Config.fromfile(CONFIG),
        dict(big=TEACHER, other=CONFIG),
        dict(big='random', other='random'),
        ['rcka@big', 'nd@other'],
    )
    model = build(Config.fromstring(cfg.pretty_text, '.py').model)
    assert list(model.teachers) == ['big', 'other']
    assert {'distill.loss_rcka_big', 'distill.loss_nd_other'} <= set(losses(model))


def test_class_names_are_written_down():
    cfg = distill_config(Config.fromfile(CONFIG), TEACHER, 'random')
    assert cfg.model.classes.student[:2] == ['disk', 'square']
    cfg = Config(dict(model=cfg.model.student))  # no data, no names
    assert 'classes' not in distill_config(cfg, TEACHER, 'random').model


@pytest.mark.parametrize(
    'methods,text',
    [
        (['rkca'], r"one of .*rcka.*'rkca'.*Did you mean: rcka"),
        (['rcka:0'], r"factor of 'rcka:0' to be a number > 0"),
        (['rcka:-1'], 'to be a number > 0'),
        (['rcka:many'], "'many'"),
        (['rcka:inf'], 'to be a number > 0'),
        (['nd', 'kd++'], 'without a term twice, but got nd again'),
        (['rcka', 'rcka'], 'without a term twice'),
        ([], 'at least one method'),
        ('rcka', "a list of at least one method, but got 'rcka'"),
    ],
)
def test_mistakes_in_methods(methods, text):
    with pytest.raises(ValueError, match=text):
        distill_entries(methods)


def test_mistakes_in_configs():
    with pytest.raises(ValueError, match='with a model'):
        distill_config(Config(dict(a=1)), TEACHER, 'x.pth')
    cfg = distill_config(Config.fromfile(CONFIG), TEACHER, 'x.pth')
    with pytest.raises(ValueError, match='distills already'):
        distill_config(cfg, TEACHER, 'x.pth')
    with pytest.raises(ValueError, match='--teacher CONFIG'):
        distill_config(Config.fromfile(CONFIG), None, 'x.pth')


def test_a_mistake_on_the_command_line(tmp_path):
    # others, in this process: test_mistakes.py
    done = training.command(
        'tools/train.py',
        CONFIG,
        '--work-dir',
        tmp_path,
        '--teacher',
        TEACHER,
        '--teacher-ckpt',
        'https://x/y.pth',
        '--distill',
        'rckaa',
    )
    assert done.returncode == 1 and 'Did you mean: rcka' in done.stdout
    assert 'Traceback' not in done.stdout


@pytest.mark.slow
def test_merged_config_trains_the_same_in_mmdets_own_tool(shapes, tmp_path):
    """The run of one command, and that of the config it left, line by line."""
    import json

    import torch

    weights = tmp_path / 'teacher.pth'
    teacher = tmp_path / 'teacher.py'
    cfg = Config.fromfile(TEACHER)
    cfg.model.update(fcos(8, num_classes=6))
    cfg.dump(teacher)
    torch.save(dict(state_dict=build(cfg.model).state_dict()), weights)
    plain = tmp_path / 'plain.py'
    cfg = training.config(shapes, tmp_path / 'unused', None, epochs=10)
    cfg.train_cfg.val_interval = 10
    cfg.model = fcos(num_classes=6)
    cfg.default_hooks.logger.interval = 1
    cfg.pop('work_dir')
    cfg.log_level = 'INFO'
    cfg.dump(plain)
    done = training.command(
        'tools/train.py',
        plain,
        '--teacher',
        teacher,
        '--teacher-ckpt',
        weights,
        '--distill',
        'rcka:0.1',
        'nd',
        '--work-dir',
        tmp_path / 'one',
    )
    assert done.returncode == 0, done.stdout[-3000:]
    merged = tmp_path / 'one' / 'plain.py'
    assert 'kd_ext.RCKALoss' in merged.read_text()
    from pathlib import Path

    import mmdet

    tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    done = training.command(tool, merged, '--work-dir', tmp_path / 'two')
    assert done.returncode == 0, done.stdout[-3000:]

    def scalars(folder):
        file = next((tmp_path / folder).glob('*/vis_data/scalars.json'))
        return [
            {key: value for key, value in json.loads(line).items() if 'loss' in key}
            for line in file.read_text().splitlines()
            if '"loss"' in line
        ]

    one, two = scalars('one'), scalars('two')
    assert one == two and len(one) == 20
    assert all(line['distill.loss_nd'] > 0 for line in one)
