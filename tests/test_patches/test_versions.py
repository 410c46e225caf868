"""Each shim does its work, and nothing where it is not needed."""

import importlib.util
import shutil
import sys
from collections import OrderedDict
from importlib.metadata import distributions
from pathlib import Path

import pytest
import torch

import kd_ext.patches
from kd_ext.patches import quantization, ssd
from kd_ext.patches.checkpoints import REFUSES
from tests.helpers.fresh_processes import fresh, run
from tests.helpers.without_ops import compiled, hide_ops


class TestQuantizationStub:
    def test_razor_needs_it(self):
        # the day this fails the shim can go
        assert 'broken' in fresh("try:\n    import mmrazor.models\nexcept Exception:\n    print('broken')")

    def test_distillation_half_imports(self):
        from mmrazor.models import losses

        assert losses.PKDLoss and losses.ChannelWiseDivergence

    @pytest.mark.parametrize(
        'use',
        [
            'from mmrazor.models.quantizers import OpenVINOQuantizer as q; q()',
            'from mmrazor.models.fake_quants import LearnableFakeQuantize as q; q.with_args()',
            'from mmrazor.models.observers.lsq import LSQObserver as q; q()',
            'from mmrazor.engine.runner.quantization_loops import QATEpochBasedLoop as q; q()',
        ],
    )
    def test_use_says_why(self, use):
        with pytest.raises(ImportError, match='quantization half of mmrazor'):
            exec(use)

    def test_nothing_where_the_apis_are_there(self, monkeypatch):
        monkeypatch.setattr(quantization, 'apis_are_gone', lambda: False)
        monkeypatch.setattr(sys, 'meta_path', [])
        monkeypatch.delitem(sys.modules, 'mmrazor.models', raising=False)
        quantization.stub_razor_quantization()
        assert sys.meta_path == []

    def test_installed_once(self):
        before = list(sys.meta_path)
        kd_ext.patches.install()
        assert sys.meta_path == before
        assert sum(type(f).__name__ == '_StubFinder' for f in sys.meta_path) == 1


@pytest.mark.skipif(not REFUSES, reason='torch before 2.6 refuses nothing by itself')
class TestCheckpointsOfMMEngine:
    @pytest.fixture
    def path(self, tmp_path):
        import numpy as np
        from mmengine.logging import HistoryBuffer

        history = HistoryBuffer([1.0, 2.0], [1, 1])
        path = tmp_path / 'log.pth'
        torch.save(dict(log=history, value=np.float64(3), count=np.int64(4), array=np.arange(3.0)), path)
        return path

    def test_refused_without_the_shim(self, path):
        assert 'refused' in fresh(
            f"import torch\ntry:\n    torch.load({str(path)!r})\nexcept Exception:\n    print('refused')"
        )

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


@pytest.mark.parametrize('name', ['mmengine', 'mmrazor', 'ordered_set'])
def test_a_missing_package_is_named_with_what_brings_it(name):
    done = run('-c', f'import sys; sys.modules[{name!r}] = None; import kd_ext')
    assert f'an environment without {name}. pip install' in done.stderr and 'kd_ext[lite]' in done.stderr


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

    cfg = Config.fromstring("_base_ = 'kd_ext::_base_/models/fcos_small.py'", '.py')
    assert cfg.model.type == 'FCOS'


def test_configs_without_a_folder_resolve_by_package():
    from mmengine.config import Config
    from mmengine.hub import get_config

    name = 'kd_ext::fcos_r18_shapes.py'
    assert 'needs a folder' in fresh(
        'from mmengine.config import Config\ntry:\n'
        f"    Config.fromstring('_base_ = \"mmdet{name[6:]}\"', '.py')\n"
        "except ValueError:\n    print('needs a folder')"
    )
    assert Config.fromstring(f'_base_ = {name!r}', '.py').model.type == 'FCOS'
    assert get_config(name).model.type == 'FCOS'
    with pytest.raises(FileNotFoundError):
        get_config('kd_ext::fcos_r18_shape.py')
    with pytest.raises(ValueError, match='specify the package name'):
        get_config('mmdet::retinanet_r18_fpn_1x_coco.py')


def test_types_resolve_without_custom_imports():
    assert 'RCKALoss' in fresh("from mmengine.registry import MODELS\nprint(MODELS.get('kd_ext.RCKALoss').__name__)")


SSD = """
import torch
from mmengine.config import ConfigDict
{first}
from mmdet.models.dense_heads import SSDHead
{then}
head = SSDHead(num_classes=2, in_channels=(8, 8), anchor_generator=dict(
    type='SSDAnchorGenerator', scale_major=False, strides=[8, 16],
    ratios=[[2], [2]], min_sizes=[16, 32], max_sizes=[32, 64]),
    test_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=0.45),
                        score_thr=0.02, max_per_img=5))
maps = [torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 4, 4)]
meta = dict(img_shape=(64, 64), scale_factor=(1., 1.))
try:
    boxes = head.predict_by_feat(*head(maps), batch_img_metas=[meta])[0]
    print(len(boxes), 'boxes', *head.state_dict())
except AttributeError as error:
    print(error)
"""


class TestLimitOfRazor:
    SCRIPT = "{first}\nimport mmrazor, mmcv; print('imported beside', mmcv.__version__)"

    @pytest.fixture
    def newer(self, tmp_path):
        """mmcv as of 2.3.6, installed under the name of its successor."""
        if list(distributions(name='onedl-mmcv')):
            pytest.skip('the successor is installed here')
        env = hide_ops(tmp_path)
        version = tmp_path / 'mmcv/version.py'
        text = version.read_text().replace("'2.1.0'", "'2.3.6'")
        version.unlink()
        version.write_text(text)
        (tmp_path / 'onedl_mmcv-2.3.6.dist-info').mkdir()
        (tmp_path / 'onedl_mmcv-2.3.6.dist-info/METADATA').write_text('Name: onedl-mmcv\nVersion: 2.3.6\n')
        return tmp_path, env

    def test_razor_needs_it(self, newer):
        # the day this fails the shim can go
        assert 'MMCV==2.3.6 is used but incompatible' in run('-c', self.SCRIPT.format(first=''), env=newer[1]).stderr

    def test_imports(self, newer):
        assert (
            run('-c', self.SCRIPT.format(first='import kd_ext'), env=newer[1]).stdout.strip()
            == 'imported beside 2.3.6'
        )

    def test_other_versions_are_left_to_razor(self, newer):
        shutil.rmtree(newer[0] / 'onedl_mmcv-2.3.6.dist-info')
        assert 'is used but incompatible' in run('-c', self.SCRIPT.format(first='import kd_ext'), env=newer[1]).stderr


class TestPredictionOfSSD:
    def test_mmdet_needs_it(self):
        compiled()  # else mmdet does not import without kd_ext
        # the day this fails the shim can go
        assert "no attribute 'loss_cls'" in fresh(SSD.format(first='', then=''))

    @pytest.mark.parametrize('where', ['first', 'then'])
    def test_predicts(self, where):
        if where == 'then':
            compiled()
        printed = fresh(SSD.format(**{'first': '', 'then': '', where: 'import kd_ext'})).splitlines()[-1]
        assert printed.startswith('5 boxes') and 'loss_cls' not in printed

    def test_mmdet_is_not_imported_for_it(self):
        assert 'False' in fresh("import sys, kd_ext; print('mmdet.models' in sys.modules)")

    @pytest.mark.parametrize('name', ['ssd300_vgg16', 'lipschitz_ssd300_vgg16_mobilenet-v2'])
    def test_a_config_of_ssd_asks_for_it(self, name):
        path = Path(__file__).parents[2] / f'configs/{name}_voc0712.py'
        assert 'True' in fresh(
            'import sys; from mmengine.config import Config; '
            f"Config.fromfile({str(path)!r}); print('kd_ext' in sys.modules)"
        )

    def test_nothing_where_the_head_has_one(self):
        from types import SimpleNamespace

        class Head(torch.nn.Module):
            def __init__(self, width):
                """Of a later version."""
                super().__init__()
                self.loss_cls = torch.nn.Linear(width, 1)

        ssd.set_missing_loss_cls(SimpleNamespace(SSDHead=Head))
        once = Head.__init__
        ssd.set_missing_loss_cls(SimpleNamespace(SSDHead=Head))
        assert Head.__init__ is once and once.__doc__ == 'Of a later version.'
        assert isinstance(Head(width=3).loss_cls, torch.nn.Linear)

    def test_a_loss_set_afterwards_is_the_one_found(self):
        from mmdet.models.dense_heads import SSDHead

        class Own(SSDHead):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.loss_cls = torch.nn.Linear(1, 1)

        head = Own(
            num_classes=2,
            in_channels=(8,),
            anchor_generator=dict(
                type='SSDAnchorGenerator', scale_major=False, strides=[8], ratios=[[2]], min_sizes=[16], max_sizes=[32]
            ),
        )
        assert isinstance(head.loss_cls, torch.nn.Linear)


EVERYTHING = """
import contextlib, importlib, io, pkgutil, sys, types

KNOWN = set()

def import_all():
    for package in {packages!r}:
        root = importlib.import_module(package)
        for found in pkgutil.walk_packages(root.__path__, package + '.', onerror=lambda name: None):
            if '.mim' not in found.name:
                with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                    importlib.import_module(found.name)

def attributes():
    seen = {{}}
    known = KNOWN or sys.modules
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] not in {packages!r} or name not in known:
            continue
        for key, value in vars(module).items():
            seen[f'{{name}}.{{key}}'] = value
            if isinstance(value, (dict, list, set)) and not key.startswith('__'):
                seen[f'the content of {{name}}.{{key}}'] = hash(tuple(sorted(map(str, value))))
            if isinstance(value, type) and value.__module__ == name:
                seen.update({{f'{{name}}.{{key}}.{{inner}}': held for inner, held in vars(value).items()}})
    return seen

import_all()
KNOWN.update(sys.modules)  # kd_ext makes more of mmrazor importable
before = attributes()
assert len(before) > 20000
for line in {steps!r}:
    exec(line)
    after = attributes()
    for name in sorted(after):
        old = before.get(name, KNOWN)
        same = after[name] is old or isinstance(old, int) and after[name] == old
        if not same and not isinstance(after[name], types.ModuleType):
            print(line, name, sep='|')
"""
PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmrazor')
CONTENTS = [
    f'the content of mmengine.{name}'
    for name in (
        'config.utils.MODULE2PACKAGE',
        'config.utils.PKG2PROJECT',
        'infer.infer.MODULE2PACKAGE',
        'registry.registry.MODULE2PACKAGE',
    )
]
# what `import kd_ext` changes; each is a shim of kd_ext.patches that says why
SHIMS = {
    *CONTENTS,  # one table, by four names
    *(f'mmengine.{name}._get_package_and_cfg_path' for name in ('config.config', 'config.utils', 'hub.hub')),
    *(f'mmengine.{name}.get_installed_path' for name in ('config.config', 'hub.hub', 'utils', 'utils.package_utils')),
    'mmdet.models.dense_heads.ssd_head.SSDHead.__init__',
}
POLICIES = {
    'mmengine.fileio.backends.local_backend.LocalBackend.put',
    'mmengine.hooks.checkpoint_hook.CheckpointHook._save_checkpoint_with_step',
    'mmengine.hooks.checkpoint_hook.CheckpointHook._save_best_checkpoint',
    'mmengine.runner.checkpoint.load_url',
    'mmengine.runner.checkpoint.get_torchvision_models',
    'mmengine.config.config.is_installed',
    'mmengine.hub.hub.install_package',
    'mmcv.transforms.loading.LoadImageFromFile.transform',
    'mmdet.evaluation.functional.mean_ap.Pool',
}


class TestWhatImportingChanges:
    def test_of_everything_that_is_imported(self):
        compiled()  # else mmdet does not import without kd_ext
        steps = {
            'import kd_ext': SHIMS,
            'import kd_ext.algorithms, kd_ext.engine, kd_ext.cli': SHIMS,
            'from kd_ext.engine import policies; policies.apply()': SHIMS | POLICIES,
        }
        found = fresh(EVERYTHING.format(packages=PACKAGES, steps=list(steps))).splitlines()
        for step, wanted in steps.items():
            assert {name for line, _, name in (one.partition('|') for one in found) if line == step} == wanted

    def test_of_what_is_imported_later(self):
        compiled()  # else operators and mmrazor have finders too
        printed = fresh(
            'import sys; before = list(sys.meta_path); import kd_ext\n'
            'new = [one for one in sys.meta_path if one not in before]\n'
            "print(*sorted(getattr(one, 'job', [type(one).__name__])[0] for one in new))"
        )
        assert printed.split() == ['_StubFinder', 'mmdet.models.dense_heads.ssd_head']


def test_packages_that_are_where_mmengine_looks_are_left_to_it(monkeypatch, tmp_path):
    from mmengine.utils import package_utils

    if 'mmdet' not in {one.metadata['Name'] for one in distributions()}:
        pytest.skip('mmdet is installed under the name of its successor')
    asked = []
    monkeypatch.setattr(importlib.util, 'find_spec', asked.append)
    assert package_utils.get_installed_path('mmdet').endswith('mmdet')
    assert not asked
