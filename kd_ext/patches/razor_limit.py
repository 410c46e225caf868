"""``import mmrazor`` beside the maintained successor of mmcv."""

from __future__ import annotations

import contextlib
from importlib.metadata import distributions
from typing import Iterator

from kd_ext.patches.import_hook import change_when_imported

NEWEST = '2.1.0'  # that mmrazor 1.0.0 accepts


def lift_razor_limit() -> None:
    """Lets mmrazor 1.0.0 import beside onedl-mmcv.

    It asserts mmcv <= 2.1.0 when it is imported. What kd_ext needs of it works on onedl-mmcv 2.3 too, so it is told
    2.1.0 there. Other versions of mmcv are left to the assertion.
    """
    if next(iter(distributions(name='onedl-mmcv')), None) is not None:
        change_when_imported('mmrazor', around=_mmcv_at_the_limit)


@contextlib.contextmanager
def _mmcv_at_the_limit() -> Iterator[None]:
    import mmcv

    version = mmcv.__version__
    mmcv.__version__ = NEWEST
    try:
        yield
    finally:
        mmcv.__version__ = version
