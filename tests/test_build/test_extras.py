"""Without mmsegmentation: all else works, and what names it says so."""

import sys

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from kd_ext.build.configs import find_config
from kd_ext.build.extras import require_extra
from kd_ext.cli.config import load_config
from kd_ext.engine import policies
from tests.helpers.tiny_detectors import build, distill, fcos

TEXT = (
    r"Expected mmsegmentation, which scope 'mmseg' names, to be installed "
    r'with all that it imports, but got no {}\. Install the extra: '
    r"pip install 'kd_ext\[seg\]'"
)
PSP = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


@pytest.fixture
def without(monkeypatch):
    """Takes modules away: a context that expects the message."""

    def take(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        return pytest.raises(ModuleNotFoundError, match=TEXT.format(', '.join(names)))

    return take


@pytest.mark.parametrize('name', ['mmseg', 'mmsegmentation'])
@pytest.mark.parametrize('missing', [('mmseg', 'ftfy', 'regex'), ('ftfy', 'regex'), ('regex',)])
def test_what_is_missing_is_named(without, name, missing):
    if 'mmseg' not in missing:
        pytest.importorskip('mmseg')
    with without(*missing):
        require_extra(name)


@pytest.mark.parametrize('name', [None, 'mmdet', 'kd_ext', 'numpy'])
def test_nothing_else_is_an_extra(without, name):
    without('mmseg', 'ftfy', 'regex')
    require_extra(name)


@pytest.mark.parametrize(
    'read',
    [
        lambda: Config.fromstring(f'_base_ = {PSP!r}', '.py'),
        lambda: get_config(PSP),  # would call pip
        lambda: distill(teacher=PSP),
        lambda: distill(student=PSP),
        lambda: distill(teacher=dict(type='mmseg.EncoderDecoder')),
        lambda: distill(teacher=dict(type='EncoderDecoder', _scope_='mmseg')),
        lambda: distill(teacher=dict(default_scope='mmseg', model=dict(type='EncoderDecoder'))),
        lambda: find_config(PSP),
    ],
)
def test_what_names_mmseg(without, monkeypatch, read):
    import subprocess

    policies.apply()  # which the tools and the algorithm do
    monkeypatch.setattr(subprocess, 'check_call', None)
    with without('mmseg', 'ftfy', 'regex'):
        read()


def test_default_scope_of_a_run(without, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("default_scope = 'mmseg'\nmodel = dict()\n")
    with without('mmseg', 'ftfy', 'regex'):
        load_config(str(path))


def test_detectors_need_no_extra(without):
    without('mmseg', 'ftfy', 'regex')
    assert build(fcos()).backbone is not None
    assert distill().teacher is not None
