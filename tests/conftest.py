import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kd_ext  # noqa: F401  its shims come before mmrazor

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def reproducible():
    torch.manual_seed(0)


@pytest.fixture(scope='session', autouse=True)
def quiet():
    """MMEngine logs every initialised weight; the tests need none of it."""
    from mmengine.logging import MMLogger
    MMLogger.get_instance('mmengine', logger_name='mmengine',
                          log_level='ERROR')


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A generated data set of a few small images."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    root = Path(__file__).resolve().parents[1]
    subprocess.check_call(
        [sys.executable, 'tools/make_shapes_dataset.py', str(folder),
         '--train', '8', '--val', '4', '--size', '64', '64'],
        cwd=root, stdout=subprocess.DEVNULL)
    return folder
