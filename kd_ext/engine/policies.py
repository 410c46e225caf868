"""How a run that distills saves, reads and scores, beyond what MMEngine does.

:class:`DetectionDistill` calls :func:`apply` when it is built, and so do all tools of kd_ext, for plain detectors
as well. A plain detector in another program gets the same from ``custom_hooks=[dict(type='kd_ext.SafeRunHook')]``.
``import kd_ext`` alone changes none of this.
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
from kd_ext.errors import expected
from kd_ext.patches.import_hook import change_when_imported
from kd_ext.registry import HOOKS


def apply() -> None:
    """Applies all policies to this process; calling it again changes nothing."""
    whole_checkpoints.install()
    guarded_loading.install()
    change_when_imported('mmcv.transforms.loading', name_images)
    change_when_imported('mmdet.evaluation.functional.mean_ap', count_in_threads)
    name_missing_extras()


@HOOKS.register_module()
class SafeRunHook(Hook):
    """Calls :func:`apply` when the runner is built: for plain detectors in other programs than the tools here."""

    def __init__(self) -> None:
        apply()


def name_images(module: ModuleType) -> None:
    """Has ``LoadImageFromFile`` name the image that it cannot read.

    OpenCV's error for an empty file, say, comes without a name, from a process that has a thousand files to read.
    """
    kind = module.LoadImageFromFile
    original = kind.transform
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def transform(self: Any, results: dict) -> dict | None:
        try:
            return original(self, results)
        except Exception as error:
            raise OSError(
                expected(
                    f'the image {results.get("img_path")!r}',
                    'one that can be read',
                    f'{type(error).__name__}: {str(error).strip(". ")}',
                    'Fetch it again, or take it out of the annotations.',
                )
            ) from error

    kind.transform = transform


def count_in_threads(module: ModuleType) -> None:
    """Has mmdet's ``eval_map`` count VOC matches in threads instead of forked processes.

    A forked child inherits the locks of OpenMP and of the allocator as they are, but not the threads that would
    release them, and may wait forever: a validation after a training on a CPU hung that way. Threads give the same
    numbers, on data that need not be copied.
    """
    module.Pool = ThreadPool  # type: ignore[attr-defined]  # a name that the module imports


def name_missing_extras() -> None:
    """Has MMEngine say what to install before it looks for ``mmseg::...`` without mmsegmentation.

    Its own text for a ``_base_`` names no version, and its hub calls pip for a missing package, which would bring
    mmsegmentation without what it imports.
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
