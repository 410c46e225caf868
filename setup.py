"""Packaging, with the configs where OpenMMLab's tools look for them: in ``kd_ext/.mim``.

That folder holds ``configs``, ``tools`` and the model index: copies in a wheel, links in a checkout that is
installed in editable mode (``pip install -e`` runs ``build_py`` in its editable mode, which the usual OpenMMLab
set-up overlooks). Building a wheel or an sdist leaves the checkout, and so these links, as they are.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_PARTS = ('configs', 'tools', 'model-index.yml')
# these need a checkout
LEFT_OUT = ('__pycache__', 'quickstart.sh', 'run_tests.sh', 'setup.sh')


class BuildWithConfigs(build_py):
    """Adds ``kd_ext/.mim`` to what is built."""

    def run(self):
        super().run()
        editable = getattr(self, 'editable_mode', False)
        folder = (ROOT if editable else Path(self.build_lib)) / 'kd_ext' / '.mim'
        folder.mkdir(parents=True, exist_ok=True)
        for part in MIM_PARTS:
            source, target = ROOT / part, folder / part
            if target.is_symlink() or target.is_file():
                target.unlink()
            elif target.is_dir():
                shutil.rmtree(target)
            if editable:
                target.symlink_to(Path('../..') / part)
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
            else:
                shutil.copyfile(source, target)


def read_requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith(('#', '-'))]


version = re.search(r"__version__ = '(.+)'", (ROOT / 'kd_ext' / 'version.py').read_text()).group(1)
extras = {name: read_requirements(name) for name in ('seg', 'tests', 'lint')}
# OpenMMLab's packages are a user's choice, as in mmdet: compiled (`mim install` reads this extra), without a compiler,
# or their successors under the same import names
compiled = read_requirements('mminstall')
stacks = dict(
    mim=compiled, lite=[line.replace('mmcv==', 'mmcv-lite==') for line in compiled], onedl=read_requirements('onedl')
)
setup(
    name='kd_ext',
    version=version,
    description='Knowledge distillation for OpenMMLab detectors',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9,<3.13',
    packages=find_packages(include=['kd_ext', 'kd_ext.*']),
    package_data={'kd_ext': ['py.typed'], 'kd_ext.report': ['page.*']},
    include_package_data=False,
    entry_points=dict(console_scripts=['kd_ext=kd_ext.cli.command:main']),
    cmdclass=dict(build_py=BuildWithConfigs),
    install_requires=read_requirements('runtime'),
    extras_require=dict(extras, **stacks, all=sum(extras.values(), [])),
    zip_safe=False,
)
