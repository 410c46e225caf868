import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.data_sets import ROOT

spec = importlib.util.spec_from_file_location('doctor', ROOT / 'tools/doctor.py')
doctor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(doctor)
checks = sys.modules['doctor_checks']


@pytest.mark.parametrize('name', doctor.CHECKS)
def test_healthy_environment(name):
    result = doctor.diagnose(doctor.CHECKS[name])
    assert result['ok'], result
    assert result['fix'] == ''


@pytest.mark.parametrize(
    'name, version, fix',
    [
        ('torch', '1.13.1+cu117', 'tools/setup.sh'),
        ('mmcv', '2.2.0', 'mmcv==2.1.0'),
        ('mmcv', '2.0.1', 'mmcv==2.1.0'),
        ('mmengine', '0.10.3', 'mmengine>=0.10.4,<0.11'),
        ('mmengine', '0.11.0', 'mmengine>=0.10.4,<0.11'),
        ('mmdet', '3.2.0', 'mmdet==3.3.0'),
        ('mmrazor', '1.0.1', 'mmrazor==1.0.0'),
        ('joblib', None, 'install joblib'),
        ('ordered_set', None, 'install ordered-set'),
    ],
)
def test_wrong_version(monkeypatch, name, version, fix):
    monkeypatch.setattr(checks, 'installed_version', {checks.distribution(name): version}.get)
    result = doctor.diagnose(doctor.CHECKS[name])
    assert not result['ok']
    assert (version or 'not installed') in result['detail']
    assert fix in result['fix']


def test_mmcv_lite(monkeypatch):
    versions = {'mmcv-lite': '2.1.0'}
    monkeypatch.setattr(checks, 'installed_version', versions.get)
    assert doctor.diagnose(checks.check_mmcv) == dict(ok=True, detail='2.1.0 (mmcv-lite)', fix='')
    versions['mmcv-lite'] = '2.2.0'
    result = doctor.diagnose(checks.check_mmcv)
    assert not result['ok'] and 'mmcv-lite 2.1.0 is needed' in result['detail']
    assert 'uninstall -y mmcv-lite' in result['fix']
    versions['mmcv'] = '2.1.0'
    result = doctor.diagnose(checks.check_mmcv)
    assert not result['ok'] and 'mmcv and mmcv-lite are installed' in result['detail']


def test_operators_by_the_slow_route(monkeypatch):
    import mmcv._ext

    monkeypatch.delattr(mmcv._ext, '__file__', raising=False)
    result = doctor.diagnose(checks.check_mmcv_ops)
    assert result['ok'] and 'slow route' in result['detail'] and 'MMCV_WITH_OPS=1' in result['detail']


def doctor_of(monkeypatch, **versions):
    """The doctor's checks where these distributions are installed."""
    found = [SimpleNamespace(name=name.replace('_', '-'), version=version) for name, version in versions.items()]
    monkeypatch.setattr(
        importlib.metadata, 'distributions', lambda name: [one for one in found if one.name == name.replace('_', '-')]
    )
    there = importlib.util.spec_from_file_location('doctor_there', ROOT / 'tools/doctor_checks.py')
    module = importlib.util.module_from_spec(there)
    there.loader.exec_module(module)
    return module


def test_the_maintained_stack(monkeypatch):
    onedl = doctor_of(monkeypatch, onedl_mmcv='2.3.6', onedl_mmdetection='3.5.1', onedl_mmengine='0.10.12')
    assert onedl.check_mmcv() == (True, '2.3.6 (onedl-mmcv)', '')
    assert onedl.check_mmengine()[:2] == (True, '0.10.12')
    assert onedl.check_mmdet()[:2] == (True, '3.5.1')
    assert 'KD_EXT_STACK=onedl bash tools/setup.sh' in onedl.SETUP
    mixed = doctor_of(monkeypatch, onedl_mmcv='2.3.6', mmcv='2.1.0')
    assert not mixed.check_mmcv()[0]
    old = doctor_of(monkeypatch, onedl_mmcv='2.3.6', onedl_mmdetection='3.4.0')
    ok, detail, fix = old.check_mmdet()
    assert not ok and 'onedl-mmdetection 3.5' in detail and 'onedl-mmdetection==3.5.1' in fix


@pytest.mark.parametrize(
    'name, module, fix',
    [
        ('cuda', 'torch', 'tools/setup.sh'),
        ('opencv', 'cv2', 'opencv-python-headless'),
        ('pycocotools', 'pycocotools', 'install pycocotools'),
        ('kd_ext', 'kd_ext', 'tools/setup.sh'),
        ('mmrazor_models', 'mmrazor.models', 'mmrazor==1.0.0'),
        ('joblib', 'joblib', 'install joblib'),
    ],
)
def test_missing_module(monkeypatch, name, module, fix):
    monkeypatch.setitem(sys.modules, module, None)
    result = doctor.diagnose(doctor.CHECKS[name])
    assert not result['ok']
    assert module in result['detail'] and fix in result['fix']


def test_missing_pkg_resources(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    result = doctor.diagnose(checks.check_pkg_resources)
    assert not result['ok'] and 'setuptools<81' in result['fix']


@pytest.mark.parametrize(
    'error, detail',
    [
        (ImportError('_ext.so: undefined symbol: _ZN3c10'), 'another torch'),
        (ModuleNotFoundError('No module mmcv._ext', name='mmcv._ext'), 'without working ops'),
        (OSError('libtorch_cuda.so: cannot open shared object'), 'without working ops'),
    ],
)
def test_unusable_mmcv_ops(monkeypatch, error, detail):
    def run_nms(device):
        raise error

    monkeypatch.setattr(checks, 'run_nms', run_nms)
    result = doctor.diagnose(checks.check_mmcv_ops)
    assert not result['ok'] and detail in result['detail']
    assert '--no-binary mmcv mmcv==2.1.0' in result['fix']


def test_mmcv_ops_without_cuda(monkeypatch):
    def run_nms(device):
        assert device == 'cuda'
        raise RuntimeError('nms_impl: implementation for device cuda not found.')

    monkeypatch.setattr(checks, 'run_nms', run_nms)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    result = doctor.diagnose(checks.check_mmcv_cuda_ops)
    assert not result['ok'] and 'FORCE_CUDA=1' in result['fix']


@pytest.mark.parametrize(
    'gpu, built_for, visible, ok, detail',
    [
        (False, None, None, True, 'CPU only'),
        (False, '12.4', None, True, 'CPU only'),
        (True, None, None, True, 'built without CUDA'),
        (True, '12.4', '', True, 'CPU only'),
        (True, '12.4', None, False, 'CUDA 12.4, the driver is not'),
    ],
)
def test_cuda(monkeypatch, gpu, built_for, visible, ok, detail):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', built_for)
    monkeypatch.setattr(checks, 'has_gpu', lambda: gpu)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    result = doctor.diagnose(checks.check_cuda)
    assert result['ok'] == ok and detail in result['detail']


@pytest.mark.parametrize(
    'name, error, fix',
    [
        ('cv2', ImportError('libGL.so.1: cannot open'), 'headless'),
        ('torchvision', RuntimeError('operator torchvision::nms does not exist'), 'uninstall -y torchvision'),
        ('pycocotools', ValueError('numpy.dtype size changed'), '--force-reinst'),
    ],
)
def test_broken_binary(monkeypatch, name, error, fix):

    class Broken:
        @staticmethod
        def find_spec(fullname, path=None, target=None):
            if fullname == name:
                raise error

    monkeypatch.setattr(sys, 'meta_path', [Broken, *sys.meta_path])
    monkeypatch.setattr(checks, 'installed_version', lambda name: '0.28.0')
    for module in [key for key in sys.modules if key.split('.')[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    check = dict(cv2='opencv').get(name, name)
    result = doctor.diagnose(doctor.CHECKS[check])
    assert not result['ok'] and str(error) in result['detail']
    assert fix in result['fix']


def test_refused_checkpoint(monkeypatch):
    monkeypatch.setattr(torch.serialization, '_marked_safe_globals_set', set(), raising=False)
    torch.serialization.clear_safe_globals()
    from kd_ext.patches.checkpoints import trust_mmengine_checkpoints

    try:
        result = doctor.diagnose(checks.check_checkpoints)
    finally:
        trust_mmengine_checkpoints()
    assert not result['ok']
    assert 'torch.load refuses' in result['detail']


def test_a_crash_is_a_problem():
    def check():
        print('noise')
        raise ZeroDivisionError('one\ntwo')

    result = doctor.diagnose(check)
    assert result == dict(ok=False, detail='ZeroDivisionError: one two', fix=checks.SETUP)


@pytest.mark.parametrize('ok', [True, False])
def test_report_and_exit_status(monkeypatch, capsys, ok):
    monkeypatch.setattr(
        doctor, 'CHECKS', dict(first=lambda: (True, 'fine', 'unused'), second=lambda: (ok, 'two', 'do this'))
    )
    assert doctor.main([]) == int(not ok)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'ok      first: fine'
    assert lines[1] == ('ok      second: two' if ok else 'problem second: two. Fix: do this')
    assert len(lines) == 2

    assert doctor.main(['--json']) == int(not ok)
    printed = json.loads(capsys.readouterr().out)
    assert printed['ok'] == ok
    assert printed['checks'][1] == dict(name='second', ok=ok, detail='two', fix='' if ok else 'do this')


@pytest.mark.slow
def test_runs_on_the_standard_library_alone():
    # -S: no site-packages, so nothing of what is checked is there
    done = subprocess.run(
        [sys.executable, '-S', '-I', str(ROOT / 'tools/doctor.py')], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert 'Traceback' not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(doctor.CHECKS)
    assert lines[0].startswith('ok      python')
    assert lines[1].startswith('problem torch: not installed')
