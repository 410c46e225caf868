"""Packaging, with the configs shipped where OpenMMLab tools look for them.

``kd_ext/.mim`` holds ``configs``, ``tools`` and the model index: copied into
wheels and sdists, linked for editable installs (``pip install -e`` runs
``editable_wheel``, which the usual OpenMMLab set-up overlooks).
"""

import re
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
MIM_PARTS = ('configs', 'tools', 'model-index.yml')


def read_requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith(('#', '-'))]


def add_mim_folder():
    link = 'editable_wheel' in sys.argv or 'develop' in sys.argv
    copy = any(arg in sys.argv for arg in ('bdist_wheel', 'sdist', 'install'))
    if not (link or copy):
        return
    folder = ROOT / 'kd_ext' / '.mim'
    folder.mkdir(exist_ok=True)
    for part in MIM_PARTS:
        source, target = ROOT / part, folder / part
        if not source.exists():  # built from an sdist, which carries a copy
            continue
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        if link:
            target.symlink_to(Path('../..') / part)
        elif source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copyfile(source, target)


add_mim_folder()
version = re.search(r"__version__ = '(.+)'", (ROOT / 'kd_ext' / 'version.py').read_text()).group(1)
extras = {name: read_requirements(name) for name in ('seg', 'tests', 'lint')}
setup(
    name='kd_ext',
    version=version,
    description='Knowledge distillation for OpenMMLab detectors',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9,<3.13',
    packages=find_packages(include=['kd_ext', 'kd_ext.*']),
    include_package_data=True,
    install_requires=(read_requirements('mminstall') + read_requirements('runtime')),
    extras_require=dict(extras, all=sum(extras.values(), [])),
    zip_safe=False,
)
