"""The ready parts on somebody's own config, and the examples of the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import kd_ext
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
    weight = Config.fromfile(path)[name].loss_weight
    # a new one has a page of its own at least
    rows = [line for line in PAGE.splitlines() if f'| `{name}.py` |' in line]
    assert rows or (ROOT / 'docs' / 'methods' / f'{name}.md').is_file()
    assert all(float(row.split('|')[-2]) == weight for row in rows)


STOCK = Path(mmdet.__file__).parent / '.mim/tools'
EVERYWHERE = MINE.replace("'kd_ext::_base_/distill/%s.py'", "__import__('kd_ext').part('%s')")


def stock(script, *args, cwd):
    """Runs a tool of mmdet as it is installed."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', STOCK / script, *map(str, args)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=280,
    )


@pytest.mark.slow
def test_a_part_in_the_tools_of_mmdet(shapes, tmp_path):
    """By its call; by its name alone they do not know the package, and the page says so."""
    options = [
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        f'train_dataloader.dataset.data_root={shapes}',
        f'val_dataloader.dataset.data_root={shapes}',
        f'test_dataloader.dataset.data_root={shapes}',
        f'val_evaluator.ann_file={shapes}/annotations/instances_val.json',
        f'test_evaluator.ann_file={shapes}/annotations/instances_val.json',
        'train_cfg.max_epochs=1',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
    ]
    path = tmp_path / 'mine.py'
    path.write_text(MINE % ('rcka', 'rcka', 'rcka'))
    done = stock('train.py', path, *options, cwd=tmp_path)
    assert done.returncode and 'does not support to load kd_ext config' in done.stdout
    publishes = "custom_hooks = [dict(type='kd_ext.PublishStudentHook')]\n"
    path.write_text(EVERYWHERE % ('rcka', 'rcka', 'rcka') + publishes)
    done = stock('train.py', path, *options, cwd=tmp_path)
    assert done.returncode == 0 and 'distill.loss_rcka' in done.stdout, done.stdout[-3000:]
    assert (tmp_path / 'work/student_epoch_1.pth').is_file() and 'DetInferencer(weights=' in done.stdout
    done = stock('test.py', path, tmp_path / 'work/epoch_1.pth', *options, cwd=tmp_path)
    assert done.returncode == 0 and 'Epoch(test) [1/1]' in done.stdout, done.stdout[-3000:]


def test_a_part_that_is_not_there():
    with pytest.raises(FileNotFoundError, match='Did you mean: rcka'):
        kd_ext.part('rckaa')


def test_the_example_is_short():
    assert len(CONFIGS[0].splitlines()) <= 12


@pytest.mark.parametrize('text', CONFIGS, ids=('one', 'by a call', 'several', 'other classes', 'several teachers'))
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
