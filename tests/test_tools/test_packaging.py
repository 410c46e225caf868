"""What a wheel holds, and that building one leaves an editable install as it is."""

import importlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.helpers.data_sets import ROOT

PARTS = ('kd_ext', 'configs', 'tools', 'requirements', 'benchmarks', 'demo')
FILES = ('setup.py', 'MANIFEST.in', 'pyproject.toml', 'README.md', 'CHANGELOG.md', 'LICENSE', 'model-index.yml')


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of the checkout, installed in editable mode as far as its own files go."""
    folder = tmp_path_factory.mktemp('checkout') / 'repo'
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    call = "from setuptools import build_meta; print(build_meta.build_editable('..'))"
    subprocess.run([sys.executable, '-W', 'ignore', '-c', call], cwd=folder, check=True, capture_output=True)
    return folder


def mim(checkout):
    return {path.name: path.readlink() for path in (checkout / 'kd_ext/.mim').iterdir()}


@pytest.fixture(scope='module')
def wheel(checkout):
    """Names in the wheel, and the path of it."""
    links = mim(checkout)
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', '../out']
    done = subprocess.run([*command, '.'], cwd=checkout, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mim(checkout) == links, 'building a wheel changed the links of the editable install'
    (path,) = (checkout.parent / 'out').glob('*.whl')
    return path


@pytest.mark.slow
class TestPackaging:
    def test_links_of_an_editable_install(self, checkout):
        links = mim(checkout)
        assert set(links) == {'configs', 'tools', 'model-index.yml'}
        assert all((checkout / 'kd_ext/.mim' / link).exists() for link in links.values())

    def test_what_a_wheel_holds(self, wheel):
        names = set(zipfile.ZipFile(wheel).namelist())
        tops = {name.partition('/')[0] for name in names}
        assert {top for top in tops if not top.endswith('.dist-info')} == {'kd_ext'}
        assert {f'kd_ext/{path.relative_to(ROOT / "kd_ext")}' for path in (ROOT / 'kd_ext').glob('*/*.py')} <= names
        configs = {f'kd_ext/.mim/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.py')}
        assert configs and configs <= names
        tools = {name.rpartition('/')[2] for name in names if name.startswith('kd_ext/.mim/tools/')}
        assert {'train.py', 'test.py', 'doctor.py', 'dist_train.sh', 'common.sh'} <= tools
        # they need a checkout
        assert not tools & {'quickstart.sh', 'setup.sh', 'run_tests.sh'}
        assert {'kd_ext/py.typed', 'kd_ext/.mim/model-index.yml'} <= names
        assert not any('__pycache__' in name for name in names)

    def test_its_console_command(self, wheel):
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith('entry_points.txt'))
            lines = archive.read(name).decode().split('\n')
        (entry,) = (line for line in lines if line.startswith('kd_ext'))
        module, _, function = entry.partition('=')[2].strip().partition(':')
        assert callable(getattr(importlib.import_module(module), function))

    def test_finds_its_configs(self, wheel, tmp_path):
        zipfile.ZipFile(wheel).extractall(tmp_path)
        script = "import kd_ext; from mmengine.hub import get_config; print(kd_ext.part('rcka')); "
        script += "print(get_config('kd_ext::fcos_r18_shapes.py').model.type)"
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', script], cwd=tmp_path, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [f'{tmp_path}/kd_ext/.mim/configs/_base_/distill/rcka.py', 'FCOS']

    def test_a_wheel_of_an_sdist_is_the_same(self, checkout, wheel, tmp_path):
        call = f'from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))'
        links = mim(checkout)
        subprocess.run([sys.executable, '-W', 'ignore', '-c', call], cwd=checkout, check=True, capture_output=True)
        assert mim(checkout) == links
        (path,) = tmp_path.glob('*.tar.gz')
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path)
        (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
        call = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
        subprocess.run([sys.executable, '-W', 'ignore', '-c', call], cwd=folder, check=True, capture_output=True)
        (again,) = tmp_path.glob('*.whl')
        assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())
