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
