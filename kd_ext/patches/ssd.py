"""Predictions of SSD in mmdet 3.3."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from kd_ext.patches.import_hook import change_when_imported


def let_ssd_predict() -> None:
    """Sets ``loss_cls = None`` in heads of SSD that have none.

    ``BaseDenseHead._predict_by_feat_single`` asks for ``self.loss_cls``, which SSDHead's ``__init__`` does not
    set, so every validation ends in an AttributeError (mmdetection issues 11063, 11305 and 11780). None answers the
    question: no custom loss. The head's module is changed when something else imports it.
    """
    change_when_imported('mmdet.models.dense_heads.ssd_head', set_missing_loss_cls)


def set_missing_loss_cls(module: ModuleType) -> None:
    """Changes ``SSDHead`` of its module."""
    head = module.SSDHead
    original = head.__init__
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        # not on the class: there it would hide a submodule of that name
        if not hasattr(self, 'loss_cls'):
            self.loss_cls = None

    head.__init__ = __init__
