"""Which model a config and a checkpoint are, and what identifies it."""

import hashlib

import pytest
import torch
from mmengine.config import Config

from kd_ext.build.configs import distills
from kd_ext.cli.models import teacher_source
from kd_ext.teachers import identity
from tests.helpers import tiny_detectors as tiny

PKG = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'


def distilling(teacher):
    return Config(
        dict(model=dict(type='kd_ext.DetectionDistill', student=tiny.fcos(), teacher=teacher, teacher_ckpt='x.pth'))
    )


@pytest.mark.parametrize(
    'teacher, name',
    [(PKG, PKG), (str(tiny.ROOT / 'configs/fcos_r18_shapes.py'), 'fcos_r18_shapes.py'), (tiny.fcos(), 'FCOS')],
)
def test_teacher_of_a_config_that_distills(teacher, name):
    model, found = teacher_source(distilling(teacher), '/a/kd.py')
    assert (model['type'], found) == ('FCOS', name)


def test_teacher_by_its_own_config():
    cfg = Config(dict(model=dict(type='FCOS'), default_scope='mmdet'))
    model, name = teacher_source(cfg, '/home/me/own.py')
    assert name == 'own.py' and model['_scope_'] == 'mmdet'
    assert not distills(cfg.model)


def test_digest_of_configs():
    one, other = (Config(dict(model=dict(a=1, b=[2, value]))).model for value in (3, 4))
    assert identity.digest(one) == identity.digest(dict(b=[2, 3], a=1))
    assert identity.digest(one) != identity.digest(other)


def test_digest_of_checkpoints(tmp_path, monkeypatch):
    model = torch.nn.BatchNorm1d(2)
    (tmp_path / 'checkpoints').mkdir()
    file = tmp_path / 'checkpoints' / 'teacher.pth'
    file.write_bytes(b'weights')
    sha = hashlib.sha256(b'weights').hexdigest()
    assert identity.checkpoint_digest(str(file), model) == sha
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    url = 'https://some.where/models/{}.pth?download=1'
    assert identity.checkpoint_digest(url.format('teacher'), model) == sha
    weights = identity.checkpoint_digest(url.format('gone'), model)
    assert weights != sha
    model.bias.data += 1
    assert identity.checkpoint_digest(url.format('gone'), model) != weights
