"""Each shim does its work, and nothing where it is not needed."""

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from kd_ext import compat


def fresh(script):
    """Runs a script in an interpreter of its own: stdout."""
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', script],
                            text=True, capture_output=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


class TestQuantizationStub:

    def test_razor_needs_it(self):
        # the day this fails the shim can go
        assert 'broken' in fresh(
            'try:\n    import mmrazor.models\nexcept Exception:\n'
            "    print('broken')")

    def test_distillation_half_imports(self):
        from mmrazor.models import losses
        assert losses.PKDLoss and losses.ChannelWiseDivergence

    @pytest.mark.parametrize('use', [
        'from mmrazor.models.quantizers import OpenVINOQuantizer as q; q()',
        'from mmrazor.models.fake_quants import LearnableFakeQuantize as q; '
        'q.with_args()',
        'from mmrazor.models.observers.lsq import LSQObserver as q; q()',
        'from mmrazor.engine.runner.quantization_loops import QATEpochBased'
        'Loop as q; q()',
    ])
    def test_use_says_why(self, use):
        with pytest.raises(ImportError, match='quantization half of mmrazor'):
            exec(use)

    def test_nothing_where_the_apis_are_there(self, monkeypatch):
        monkeypatch.setattr(compat, 'quantization_apis_are_gone',
                            lambda: False)
        monkeypatch.setattr(sys, 'meta_path', [])
        monkeypatch.delitem(sys.modules, 'mmrazor.models', raising=False)
        compat.stub_razor_quantization()
        assert sys.meta_path == []

    def test_installed_once(self):
        compat.install()
        compat.install()
        assert sum(type(f).__name__ == '_StubFinder'
                   for f in sys.meta_path) == 1


class TestCheckpointsOfMMEngine:

    @pytest.fixture
    def path(self, tmp_path):
        import numpy as np
        from mmengine.logging import HistoryBuffer
        history = HistoryBuffer([1., 2.], [1, 1])
        path = tmp_path / 'log.pth'
        torch.save(dict(log=history, value=np.float64(3), count=np.int64(4),
                        array=np.arange(3.)), path)
        return path

    def test_refused_without_the_shim(self, path):
        assert 'refused' in fresh(
            f'import torch\ntry:\n    torch.load({str(path)!r})\n'
            "except Exception:\n    print('refused')")

    def test_loads_with_the_default_of_torch(self, path):
        content = torch.load(path, weights_only=True)
        assert content['log'].mean() == 1.5
        assert content['value'] == 3 and content['count'] == 4
        assert content['array'].tolist() == [0, 1, 2]

    def test_a_file_that_runs_code_is_still_refused(self, tmp_path):

        class Evil:

            def __reduce__(self):
                return getattr, (OrderedDict, 'fromkeys')

        torch.save(dict(evil=Evil()), tmp_path / 'evil.pth')
        with pytest.raises(Exception, match='statistics of its log history'):
            torch.load(tmp_path / 'evil.pth')


def test_package_is_known_to_config_paths():
    from mmengine.config.utils import MODULE2PACKAGE
    assert MODULE2PACKAGE['kd_ext'] == 'kd_ext'


def test_package_is_found_whatever_its_install():
    from mmengine.utils import get_installed_path

    import kd_ext
    folder = str(Path(kd_ext.__file__).parent)
    assert Path(get_installed_path('kd_ext')).samefile(folder)
    assert get_installed_path('mmdet').endswith('site-packages/mmdet')


def test_config_parts_resolve_by_package():
    from mmengine.config import Config
    cfg = Config.fromstring(
        "_base_ = 'kd_ext::_base_/models/fcos_small.py'", '.py')
    assert cfg.model.type == 'FCOS'


def test_types_resolve_without_custom_imports():
    assert 'RCKALoss' in fresh(
        'from mmengine.registry import MODELS\n'
        "print(MODELS.get('kd_ext.RCKALoss').__name__)")
