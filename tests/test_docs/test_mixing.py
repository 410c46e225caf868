"""The ready parts on somebody's own config, and the examples of the page."""

import re

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from kd_ext.recipes import METHODS, PARTS, distill_entries
from tests.helpers.data_sets import ROOT
from tests.helpers.shrunken_configs import data, distilled
from tests.helpers.tiny_detectors import build, losses

PAGE = (ROOT / 'docs' / 'mixing.md').read_text()
CONFIGS = [block for block in re.findall(r'```python\n(.*?)```', PAGE, re.S) if block.startswith('_base_')]
SCRIPTS = [block for block in re.findall(r'```python\n(.*?)```', PAGE, re.S) if block not in CONFIGS]
NAMES = sorted(path.stem for path in PARTS.glob('*.py'))
MINE = f"""_base_ = [
    '{ROOT}/configs/fcos_r18-quarter_shapes.py',
    'kd_ext::_base_/distill/%s.py']
model = dict(
    _delete_=True,
    type='kd_ext.DetectionDistill',
    student=_base_.model,
    teacher='{ROOT}/configs/fcos_r18-half_shapes.py',
    teacher_ckpt='random',
    distill=dict(%s=_base_.%s))
"""


def test_a_part_for_every_method():
    assert {part for parts in METHODS.values() for part in parts} == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_part_on_a_users_config(name, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(MINE % (name, name, name))
    cfg = Config.fromfile(path)
    # MMEngine marks what comes from another package
    assert cfg.model.distill[name].pop('_scope_') == 'kd_ext'
    assert cfg.model.distill.to_dict() == distill_entries([name])
    cfg = Config.fromfile(path)
    terms = losses(build(cfg.model))
    values = [float(value.detach()) for key, value in terms.items() if key.startswith(f'distill.loss_{name}')]
    assert values and sum(values) > 0


@pytest.mark.parametrize('name', NAMES)
def test_a_part_holds_its_entry_alone(name):
    path = PARTS / f'{name}.py'
    assert list(Config.fromfile(path)) == [name]
    assert f'| `{name}.py` |' in PAGE
    weight = Config.fromfile(path)[name].loss_weight
    row = next(line for line in PAGE.splitlines() if f'`{name}.py` |' in line)
    assert float(row.split('|')[-2]) == weight


def test_the_example_is_short():
    assert len(CONFIGS[0].splitlines()) <= 12


@pytest.mark.parametrize('text', CONFIGS, ids=('one', 'several', 'other classes', 'several teachers'))
def test_an_example_builds_and_steps(text, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    if 'classes' in cfg.model:  # what the checkpoint would say
        cfg.model.classes.teacher = CocoDataset.METAINFO['classes']
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(distilled(cfg, 'mine'))
    terms = losses(model, data('mine'))
    for name in cfg.model.distill:
        assert any(key.startswith(f'distill.loss_{name}') for key in terms)
    assert float(terms['distill.loss_rcka'].detach()) > 0


def test_the_script_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = SCRIPTS
    exec(script, {})
    cfg = Config.fromfile('rcka-nd_retinanet.py')
    assert cfg.model.distill.rcka.loss_weight == 5
    assert cfg.model.distill.nd.schedule == dict(warmup=500)
    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(distilled(cfg, 'mine'))
