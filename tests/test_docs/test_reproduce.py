"""docs/reproduce.md names every config of COCO, VOC and Cityscapes, and its commands keep the configs' batch sizes."""

import re

import pytest
from mmengine.config import Config

from tests.helpers.data_sets import ROOT

PAGE = (ROOT / 'docs/reproduce.md').read_text()
DATASETS = ('_coco.py', '_voc0712.py', '_voc12aug.py', '_cityscapes.py')
CONFIGS = {path.name for path in (ROOT / 'configs').glob('*.py') if path.name.endswith(DATASETS)}
COMMANDS = dict(re.findall(r'^\| ([A-E]) \| `(.+?)` \|', PAGE, re.M))
RUNS = dict(re.findall(r'`([\w.-]+\.py)` (?:\| |\()([A-E])\b', PAGE))


def test_every_config_is_named_and_exists():
    named = set(re.findall(r'`([\w.-]+\.py)`', PAGE))
    assert named == CONFIGS


@pytest.mark.parametrize('name', sorted(set(re.findall(r'`(mm\w+::[\w./-]+)`', PAGE))))
def test_configs_of_other_packages_exist(name):
    if name.startswith('mmseg'):
        pytest.importorskip('mmseg', reason='segmentation is an extra')
    assert 'model' in Config.fromstring(f'_base_ = {name!r}', '.py')


def total(cfg, name):
    """The batch that the learning rate belongs to."""
    if 'auto_scale_lr' in cfg:
        return cfg.auto_scale_lr.base_batch_size
    # mmseg's configs say it in their names: 4xb4 on VOC, 4xb2 on Cityscapes
    return 16 if name.endswith('_voc12aug.py') else 8


@pytest.mark.parametrize('name', sorted(RUNS))
def test_command_keeps_the_batch(name):
    if name.endswith(('_voc12aug.py', '_cityscapes.py')):
        pytest.importorskip('mmseg', reason='segmentation is an extra')
    cfg = Config.fromfile(ROOT / 'configs' / name)
    words = COMMANDS[RUNS[name]].replace('CONFIG', name).split()
    assert words[:2] == ['bash', 'tools/dist_train.sh'] and (ROOT / words[2]).is_file()
    batch = cfg.train_dataloader.batch_size
    if words[4:]:
        option, key = words[4:]
        assert option == '--cfg-options'
        batch = int(re.fullmatch(r'train_dataloader\.batch_size=(\d+)', key).group(1))
    assert int(words[3]) * batch == total(cfg, name)


def test_configs_of_the_tables_have_a_command():
    trained = {name for name in CONFIGS if '_base_/pairs/' in (ROOT / 'configs' / name).read_text()}
    # the four of RCKA on VOC have theirs in a sentence
    assert {name for name in trained - RUNS.keys() if not re.match('rcka_.*_voc0712', name)} == set()


def test_it_says_what_was_not_done():
    text = ' '.join(PAGE.split())
    assert 'None of these was trained to the end here.' in text
    assert 'CIFAR' in text and 'ImageNet' in text
