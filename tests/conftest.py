import gc
import os
import subprocess
import sys

import pytest
import torch

import kd_ext  # noqa: F401  its shims come before mmrazor
from tests.helpers.data_sets import FEW_SHAPES, ROOT

NO_LAYOUT = str(ROOT / 'tests/helpers/no_layout')


@pytest.fixture(autouse=True)
def reproducible():
    torch.manual_seed(0)


@pytest.fixture(scope='session', autouse=True)
def quiet():
    """MMEngine logs every initialised weight; the tests need none of it."""
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmengine', logger_name='mmengine', log_level='ERROR')


@pytest.fixture(scope='session', autouse=True)
def no_layout():
    """Configs are written without yapf's layout, here and in the processes that tests start."""
    from mmengine.config import config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, 'FormatCode', lambda text, **style: (text, False), raising=False)
        patch.setenv('PYTHONPATH', NO_LAYOUT, prepend=os.pathsep)
        yield


def pytest_collection_finish():
    # mmdet's data sets collect garbage twice each: they need not look at all modules again
    gc.freeze()


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
