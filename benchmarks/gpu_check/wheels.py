"""Collects the wheels that a machine without network may lack, and installs the missing ones there.

    python -m benchmarks.gpu_check.wheels collect FOLDER [--python 3.12]
    python -m benchmarks.gpu_check.wheels install FOLDER SITE

The list is ``requirements/gpu.txt``. Installing leaves alone what is there, torch above all: wheels go into the folder
SITE, for ``PYTHONPATH``. Imports the standard library and pip alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.tags import sys_tags
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

from benchmarks.gpu_check.refusal import Refusal, refusing

LIST = Path(__file__).resolve().parents[2] / 'requirements/gpu.txt'
MOST_MIB = 60
# newest first, as pip matches each exactly
PLATFORMS = [f'manylinux_2_{minor}_x86_64' for minor in (28, 27, 24, 17)] + ['manylinux2014_x86_64']
OPS = 'mmcv==2.1.0'  # the source, for compiled ops
WITH_TORCH = dict(torch='torch', numpy='numpy', scipy='scipy', matplotlib='matplotlib', cv2='opencv', PIL='Pillow')


def requirements() -> list[Requirement]:
    """Of ``requirements/gpu.txt``."""
    lines = (line.partition('#')[0].strip() for line in LIST.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def collect(folder: Path, python: str) -> str:
    """Downloads everything of the list for Linux on x86-64; says how much it is."""
    pip = [
        sys.executable,
        '-m',
        'pip',
        'download',
        '-q',
        '--no-deps',
        '--disable-pip-version-check',
        '-d',
        str(folder),
    ]
    platforms = [word for name in PLATFORMS for word in ('--platform', name)]
    wheels = ['--only-binary=:all:', '--implementation', 'cp', '--python-version', python, *platforms]
    subprocess.run([*pip, *wheels, '-r', str(LIST)], check=True)
    subprocess.run([*pip, '--no-build-isolation', '--no-binary', 'mmcv', OPS], check=True)
    files = [file for file in folder.iterdir() if file.is_file()]
    mib = sum(file.stat().st_size for file in files) / 2**20
    if mib > MOST_MIB:
        raise Refusal(f'Expected {folder} to be at most {MOST_MIB} MiB, but got {mib:.0f} MiB. Empty it first.')
    return f'{folder}: {len(files)} files for Python {python}, {mib:.1f} MiB'


def missing() -> list[Requirement]:
    """Those of the list that this Python has not."""
    return [one for one in requirements() if not _installed(one)]


def _installed(requirement: Requirement) -> bool:
    # compiled ops make mmcv-lite needless
    names = [requirement.name, 'mmcv'] if requirement.name == 'mmcv-lite' else [requirement.name]
    for name in names:
        try:
            if requirement.specifier.contains(metadata.version(name), prereleases=True):
                return True
        except metadata.PackageNotFoundError:
            continue
    return False


def wheel_for(requirement: Requirement, folder: Path) -> Path:
    """The wheel of a requirement in a folder, checked for this Python."""
    tags, others = set(sys_tags()), []
    for path in sorted(folder.glob('*.whl')):
        name, version, _, offered = parse_wheel_filename(path.name)
        if name != canonicalize_name(requirement.name) or not requirement.specifier.contains(version):
            continue
        if tags & offered:
            return path
        others.append(path.name)
    here = f'Python {sys.version_info.major}.{sys.version_info.minor}'
    again = f'Collect again: bash tools/gpu_wheels.sh FOLDER --python {here.split()[1]}'
    found = f'{others[0]}, for another one' if others else 'none'
    raise Refusal(f'Expected {folder} to hold a wheel of {requirement} for {here}, but got {found}. {again}.')


def install(folder: Path, site: Path) -> str:
    """Installs into ``site`` what this Python lacks; says what that was."""
    for module, name in WITH_TORCH.items():
        try:
            import_module(module)
        except ImportError as error:
            raise Refusal(f'Expected {name} to be installed beside torch, but got {error}.') from error
    wanted = missing()
    wheels = [str(wheel_for(one, folder)) for one in wanted]
    if wheels:
        pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-index', '--no-deps', '--no-compile']
        subprocess.run([*pip, '--disable-pip-version-check', '--upgrade', '--target', str(site), *wheels], check=True)
    return f'installed into {site}: {", ".join(one.name for one in wanted) or "nothing, all is there"}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest='step', required=True)
    one = steps.add_parser('collect')
    one.add_argument('folder', type=Path)
    one.add_argument('--python', default='3.12', help='version of the other machine (default: %(default)s)')
    one = steps.add_parser('install')
    one.add_argument('folder', type=Path)
    one.add_argument('site', type=Path)
    args = parser.parse_args()
    print(collect(args.folder, args.python) if args.step == 'collect' else install(args.folder, args.site))


if __name__ == '__main__':
    sys.exit(refusing(main))
