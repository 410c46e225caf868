import subprocess
import sys

import pytest
import torch

import kd_ext  # noqa: F401  its shims come before mmrazor
from tests.helpers.data_sets import FEW_SHAPES, ROOT


@pytest.fixture(autouse=True)
def reproducible():
    torch.manual_seed(0)


@pytest.fixture(scope='session', autouse=True)
def quiet():
    """MMEngine logs every initialised weight; the tests need none of it."""
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmengine', logger_name='mmengine', log_level='ERROR')


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A generated data set of a few small images."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    subprocess.check_call(
        [sys.executable, '-m', 'demo.make_shapes_dataset', str(folder), *FEW_SHAPES],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    return folder
