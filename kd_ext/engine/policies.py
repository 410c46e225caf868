"""Changes to how a run saves, reads and scores, beyond MMEngine's own behaviour.

:class:`DetectionDistill` and all tools of kd_ext call :func:`apply`. A plain detector in another program gets the
same from ``custom_hooks=[dict(type='kd_ext.SafeRunHook')]``. ``import kd_ext`` alone changes nothing of this.
"""

from __future__ import annotations

import functools
from multiprocessing.pool import ThreadPool
from types import ModuleType
from typing import Any, Callable

from mmengine.config import config
from mmengine.hooks import Hook
from mmengine.hub import hub

from kd_ext.build.extras import require_extra
from kd_ext.engine import guarded_loading, whole_checkpoints
from kd_ext.errors import explaining
from kd_ext.patches.import_hook import change_when_imported
from kd_ext.registry import HOOKS


def apply() -> None:
    """Applies all policies to this process; further calls change nothing."""
    whole_checkpoints.install()
    guarded_loading.install()
    change_when_imported('mmcv.transforms.loading', name_images)
    change_when_imported('mmdet.evaluation.functional.mean_ap', count_in_threads)
    name_missing_extras()


@HOOKS.register_module()
class SafeRunHook(Hook):
    """Calls :func:`apply` when the runner is built, for plain detectors outside the tools of kd_ext."""

    def __init__(self) -> None:
        apply()


def name_images(module: ModuleType) -> None:
    """Makes ``LoadImageFromFile`` name the image that it cannot read.

    OpenCV's error for an empty file, for example, does not say which of thousands of files it was.
    """
    kind = module.LoadImageFromFile
    original = kind.transform
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def transform(self: Any, results: dict) -> dict | None:
        name, remedy = f'the image {results.get("img_path")!r}', 'Fetch it again, or take it out of the annotations.'
        with explaining(name, 'one that can be read', remedy=remedy, kind=OSError):
            return original(self, results)

    kind.transform = transform


def count_in_threads(module: ModuleType) -> None:
    """Makes mmdet's ``eval_map`` count VOC matches in threads instead of forked processes.

    A forked child inherits locked mutexes of OpenMP and of the allocator, but not the threads that would unlock
    them, and may hang. Validations after training on a CPU did. Threads give the same numbers without copying
    data.
    """
    module.Pool = ThreadPool  # type: ignore[attr-defined]  # a name that the module imports


def name_missing_extras() -> None:
    """Makes MMEngine say what to install if ``mmseg::...`` is named without mmsegmentation.

    Its message for a ``_base_`` names no version, and its hub calls pip, which would install mmsegmentation
    without some packages that it imports.
    """

    def checked(original: Callable) -> Callable:
        @functools.wraps(original)
        def look(package: str) -> Any:
            require_extra(package)
            return original(package)

        return look

    for module, name in ((config, 'is_installed'), (hub, 'install_package')):
        original = getattr(module, name)
        if not hasattr(original, '__wrapped__'):
            setattr(module, name, checked(original))
