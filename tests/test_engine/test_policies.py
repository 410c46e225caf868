"""What a run that distills does beyond MMEngine: see also tests/test_faults."""

import importlib
import os
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from kd_ext.engine import guarded_loading, policies
from kd_ext.errors import TRUST, is_ours
from tests.helpers.fresh_processes import fresh
from tests.helpers.tiny_detectors import fcos, rcka

APPLIED = "from mmengine.fileio import LocalBackend\nprint(hasattr(LocalBackend.put, '__wrapped__'))\n"
DISTILLED = dict(
    type='kd_ext.DetectionDistill', student=fcos(), teacher=fcos(8), teacher_ckpt='random', distill=dict(rcka=rcka())
)
HOW = {
    'import alone': ('import kd_ext, kd_ext.algorithms, kd_ext.engine', False),
    'a distilled model': (f'from mmengine.registry import MODELS\nMODELS.build({DISTILLED!r})', True),
    'the hook': ("from mmengine.registry import HOOKS\nHOOKS.build(dict(type='kd_ext.SafeRunHook'))", True),
    'a tool': ('from kd_ext.cli.errors import run\nrun(lambda: None)', True),
}


@pytest.mark.parametrize('how', HOW)
def test_what_applies_them(how):
    script, wanted = HOW[how]
    assert fresh(f'{script}\n{APPLIED}').split()[-1] == str(wanted)


def test_applied_once():
    policies.apply()
    before = list(sys.meta_path)
    policies.apply()
    assert sys.meta_path == before


def test_voc_is_counted_in_threads():
    from multiprocessing.pool import ThreadPool

    policies.apply()
    mean_ap = importlib.import_module('mmdet.evaluation.functional.mean_ap')
    assert mean_ap.Pool is ThreadPool
    boxes = np.array([[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 29.0, 29.0]])
    right = np.hstack([boxes, [[0.9], [0.8]]])
    wrong = right + np.array([50.0, 50.0, 50.0, 50.0, 0.0])
    truth = [dict(bboxes=boxes, labels=np.zeros(2, dtype=int))] * 4
    for found, wanted in ((right, 1.0), (wrong, 0.0)):
        score, _ = mean_ap.eval_map([[found]] * 4, truth, logger='silent')
        assert score == wanted


def test_extras_are_named(monkeypatch):
    from mmengine.config import Config

    policies.apply()
    monkeypatch.setitem(sys.modules, 'ftfy', None)
    with pytest.raises(ModuleNotFoundError, match='kd_ext.seg.') as info:
        Config.fromstring("_base_ = 'mmseg::_base_/default_runtime.py'", '.py')
    assert is_ours(info.value)


class TestGuardedLoading:
    """The guard for torch < 2.6, which this torch can run as well, and the one for URLs, which no torch has."""

    class Code:
        def __init__(self, path):
            self.path = path

        def __reduce__(self):
            return os.mkdir, (str(self.path),)

    @pytest.fixture
    def evil(self, tmp_path):
        torch.save(dict(state_dict={'a': torch.zeros(2)}, meta=self.Code(tmp_path / 'made')), tmp_path / 'evil.pth')
        return tmp_path / 'evil.pth'

    @pytest.fixture
    def good(self, tmp_path):
        history = HistoryBuffer([1.0, 2.0], [1, 1])
        state = dict(a=torch.ones(2, dtype=torch.bfloat16), b=torch.nn.Parameter(torch.zeros(1)))
        content = dict(state_dict=state, log=history, value=np.float64(3), array=np.arange(3), hash=b'x', size={1})
        path = tmp_path / 'good.pth'
        torch.save(content, path)
        return path

    @pytest.fixture(params=[True, False], ids=['torch >= 2.6', 'older torch'])
    def guard(self, request, monkeypatch):
        monkeypatch.setattr(guarded_loading, 'REFUSES', request.param)
        monkeypatch.delenv(TRUST.partition('=')[0], raising=False)
        return request.param

    def test_good(self, good, guard):
        content = guarded_loading.read(good, 'cpu', mmap=True)
        assert content['log'].mean() == 1.5 and content['array'].tolist() == [0, 1, 2]
        assert content['state_dict']['a'].dtype == torch.bfloat16

    @pytest.mark.parametrize('legacy', [False, True])
    def test_evil(self, evil, guard, tmp_path, legacy):
        if legacy:
            torch.save(dict(meta=self.Code(tmp_path / 'made')), evil, _use_new_zipfile_serialization=False)
        with pytest.raises(pickle.UnpicklingError, match='mkdir'):
            guarded_loading.read(evil)
        assert not (tmp_path / 'made').exists()

    def test_trusted(self, evil, guard, tmp_path, monkeypatch):
        monkeypatch.setenv(*TRUST.split('='))
        guarded_loading.read(evil)
        assert (tmp_path / 'made').exists()

    def test_local_files_of_mmengine_on_an_older_torch(self, evil, good, monkeypatch):
        monkeypatch.setattr(guarded_loading, 'REFUSES', False)
        monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
        guarded_loading.install()
        assert CheckpointLoader.load_checkpoint(str(good), 'cpu')['value'] == 3
        with pytest.raises(pickle.UnpicklingError, match='could run code'):
            CheckpointLoader.load_checkpoint(str(evil), 'cpu')

    def test_downloads(self, evil, good, tmp_path, monkeypatch):
        policies.apply()
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
        monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda url, path, **_: shutil.copy(url[7:], path))
        path = f'http://{good}'
        assert CheckpointLoader.load_checkpoint(path, 'cpu')['value'] == 3
        assert (tmp_path / 'home/hub/checkpoints/good.pth').exists()
        with pytest.raises(pickle.UnpicklingError):
            CheckpointLoader.load_checkpoint(f'http://{evil}', 'cpu')
        assert not (tmp_path / 'made').exists()


class TestTorchvisionNames:
    """``torchvision://`` names up to the download, with torchvision and without."""

    @pytest.fixture(params=['missing', 'built for another torch'])
    def asked(self, request, tmp_path, monkeypatch):
        """URLs that were asked for."""
        policies.apply()
        if request.param == 'missing':
            monkeypatch.setitem(sys.modules, 'torchvision', None)
        else:
            (tmp_path / 'torchvision.py').write_text("raise RuntimeError('operator torchvision::nms does not exist')")
            monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
            monkeypatch.syspath_prepend(tmp_path)
        urls = []

        def download(url, path, **_):
            urls.append(url)
            torch.save(dict(a=torch.ones(1)), path)

        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
        monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
        return urls

    @pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101', 'mobilenet_v2', 'vgg16'])
    def test_names_of_configs(self, asked, name):
        assert torch.equal(CheckpointLoader.load_checkpoint(f'torchvision://{name}', 'cpu')['a'], torch.ones(1))
        (url,) = asked
        assert url.startswith(f'https://download.pytorch.org/models/{name}-')

    def test_other_names(self, asked):
        wanted = f'torchvision==0.{int(torch.__version__.split(".")[1]) + 15}'
        with pytest.raises(ModuleNotFoundError, match=f'{wanted}.*Did you mean: resnet50, ') as info:
            CheckpointLoader.load_checkpoint('torchvision://resnet50.imagenet1k_v2', 'cpu')
        assert is_ours(info.value) and not asked
