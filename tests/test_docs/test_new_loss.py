"""The page about new losses: its code runs, and its table of other packages' losses is what happens.

    python -m tests.test_docs.test_new_loss

writes the table.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config

from kd_ext.registry import MODELS
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import ROOT

PAGE = ROOT / 'docs' / 'new_loss.md'
MARKS = '<!-- losses: begin -->\n', '<!-- losses: end -->'


class Row(NamedTuple):
    """Where a loss is tried, what is said of it, and what refuses it if it does not run."""

    at: str
    note: str = ''
    refused: str = ''
    settings: dict = {}


TEACHER_ALONE = "it takes the teacher's output alone, to train a generator"
ROWS = {
    'mmrazor.ABLoss': Row('neck', 'before the ReLU, `at=` with `pre_relu`, in its paper'),
    'mmrazor.ATLoss': Row('neck'),
    'mmrazor.ActivationLoss': Row('neck', TEACHER_ALONE, r'forward takes .*forward\(feat_T\)'),
    'mmrazor.AngleWiseRKD': Row('logits', 'compares all triples of regions: N x N x N angles'),
    'mmrazor.CRDLoss': Row(
        'embedding', 'it needs the index of each training sample', 'Nothing here knows data_samples'
    ),
    'mmrazor.ChannelWiseDivergence': Row('neck'),
    'mmrazor.CrossEntropyLoss': Row('logits', "the teacher's best class is the target"),
    'mmrazor.DISTLoss': Row('logits'),
    'mmrazor.DKDLoss': Row('logits', 'heads with a softmax, whose background has a logit'),
    'mmrazor.DistanceWiseRKD': Row('embedding'),
    'mmrazor.FBKDLoss': Row('neck', "it takes the six outputs of mmrazor's FBKD connectors", 'expected 6'),
    'mmrazor.FTLoss': Row('neck'),
    'mmrazor.InformationEntropyLoss': Row('logits', TEACHER_ALONE, r'forward takes .*forward\(preds_T\)'),
    'mmrazor.KDSoftCELoss': Row('logits', 'it needs the package mmcls', 'PlaceHolder'),
    'mmrazor.KLDivergence': Row('logits'),
    'mmrazor.L1Loss': Row('neck'),
    'mmrazor.L2Loss': Row('neck'),
    'mmrazor.MGDLoss': Row('neck', 'without its masking connector, which takes other arguments: plain L2'),
    'mmrazor.OFDLoss': Row('neck', 'before the ReLU, with margins, in its paper: [Lipschitz](methods/lipschitz.md)'),
    'mmrazor.OnehotLikeLoss': Row('logits', TEACHER_ALONE, r'forward takes .*forward\(preds_T\)'),
    'mmrazor.PKDLoss': Row('neck'),
    'mmrazor.WSLD': Row(
        'logits', 'with `num_classes` = the number of logits, background included', settings=dict(num_classes=4)
    ),
    'mmdet.CrossEntropyLoss': Row('logits', 'on the labels: it learns nothing of the teacher, and the log says so'),
    'mmdet.MSELoss': Row('neck'),
}


def table() -> str:
    """The page's table in Markdown."""
    lines = ['| loss | at | |', '|---|---|---|']
    for name, row in ROWS.items():
        verdict = 'refused' if row.refused else 'runs'
        lines.append(f'| `{name}` | `{row.at}` | {verdict}{": " if row.note else ""}{row.note} |')
    return '\n'.join(lines) + '\n'


def blocks() -> dict[str, str]:
    """Python code of the page by the file name in its first line."""
    found = re.findall(r'```python\n# (\S+\.py)\n(.*?)```', PAGE.read_text(), re.S)
    return dict(found)


def test_every_loss_of_mmrazor_has_a_row():
    import mmrazor.models.losses as razor

    assert {name.partition('.')[2] for name in ROWS if name.startswith('mmrazor.')} == set(razor.__all__)


def test_the_page_shows_the_table():
    text = PAGE.read_text()
    assert text.partition(MARKS[0])[2].partition(MARKS[1])[0] == table()


@pytest.mark.parametrize('name', ROWS)
def test_row(name):
    row = ROWS[name]

    def step():
        entry = dict(type=name, at=row.at, **row.settings)
        model = tiny.distill(student=tiny.faster_rcnn(), teacher=tiny.faster_rcnn(8), term=entry).train()
        return model, tiny.losses(model)['distill.loss_term']

    if row.refused:
        with pytest.raises(ValueError, match=row.refused):
            step()
        return
    model, value = step()
    value.backward()
    taught = [p.grad.abs().sum() for p in model.student.parameters() if p.grad is not None]
    assert float(value.detach()) > 0 and torch.stack(taught).isfinite().all() and sum(taught) > 0
    assert model.distiller.terms['term'].needs_teacher == (name != 'mmdet.CrossEntropyLoss')


@pytest.fixture
def module(tmp_path):
    """Imports a block as a module; what it registers goes away again."""
    registries = MODELS, MODELS.root
    before = [dict(registry.module_dict) for registry in registries]
    made = []

    def load(block, name):
        path = tmp_path / f'{name.rpartition(".")[2]}.py'
        path.write_text(blocks()[block])
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = loaded = importlib.util.module_from_spec(spec)
        made.append(name)
        spec.loader.exec_module(loaded)
        return loaded

    yield load
    for name in made:
        del sys.modules[name]
    for registry, kept in zip(registries, before):
        registry._module_dict.clear()
        registry._module_dict.update(kept)


def test_losses_of_ones_own_project(module):
    module('my_losses.py', 'my_losses')
    cfg = Config.fromstring(blocks()['my_config.py'], '.py')
    model = tiny.distill(student=tiny.faster_rcnn(), teacher=tiny.faster_rcnn(8), **cfg.distill).train()
    values = tiny.losses(model)
    assert model.distiller.terms['own'].loss.levels == 2
    assert all(float(values[f'distill.loss_{name}'].detach()) > 0 for name in cfg.distill)


def test_a_loss_of_kd_ext_in_five_files(module):
    files = blocks()
    module('kd_ext/losses/cosine_loss.py', 'kd_ext.losses.cosine_loss')
    tests = module('tests/test_losses/test_cosine_loss.py', 'test_cosine_loss')
    for name, function in vars(tests).items():
        if name.startswith('test_'):
            function()
    entries = Config.fromstring(files['configs/_base_/distill/cosine.py'], '.py')
    model = tiny.distill(**entries).train()
    assert 0 < float(tiny.losses(model)['distill.loss_cosine'].detach()) < 6


def test_a_new_file_needs_no_other_change(tmp_path):
    """Losses and entries are found by their files."""
    import kd_ext.losses
    from kd_ext import recipes

    (tmp_path / 'cosine_loss.py').write_text(blocks()['kd_ext/losses/cosine_loss.py'].replace('@MODELS', '# @MODELS'))
    spec = importlib.util.spec_from_file_location(
        'losses_copy', kd_ext.losses.__file__, submodule_search_locations=[str(tmp_path)]
    )
    spec.submodule_search_locations[:] = [str(tmp_path)]
    sys.modules['losses_copy'] = copy = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(copy)
    finally:
        for name in [name for name in sys.modules if name.startswith('losses_copy')]:
            del sys.modules[name]
    assert copy.__all__ == ['CosineLoss', 'cosine_loss'] and callable(copy.cosine_loss)
    (tmp_path / 'distill').mkdir()
    (tmp_path / 'distill/cosine.py').write_text(blocks()['configs/_base_/distill/cosine.py'])
    assert recipes.methods_in(tmp_path / 'distill') == {'cosine': ('cosine',)}


if __name__ == '__main__':
    start, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(start + MARKS[0] + table() + MARKS[1] + rest.partition(MARKS[1])[2])
