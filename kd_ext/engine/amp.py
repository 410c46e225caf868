"""``--amp`` without a GPU, which MMEngine's own AMP wrapper requires."""

from __future__ import annotations

import contextlib
import functools
import importlib
from typing import Any, Callable, Iterator

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry
from torch import Tensor, nn

OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='kd_ext', locations=['kd_ext.engine.amp']
)


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs the model in bfloat16 on the CPU.

    bfloat16 has the range of float32, so no loss scale is needed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keep_ops_in_float32()

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


@functools.cache
def keep_ops_in_float32() -> None:
    """Makes ``nms`` and ``roi_align`` of mmcv compute in float32, as their CPU kernels lack bfloat16."""
    # ``import mmcv.ops.nms`` would give the function of that name
    nms = importlib.import_module('mmcv.ops.nms')
    nms.NMSop.apply = staticmethod(_in_float32(nms.NMSop.apply))
    roi_align = importlib.import_module('mmcv.ops.roi_align')
    roi_align.roi_align = _in_float32(roi_align.roi_align)  # type: ignore[attr-defined]  # the module's function


def _in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def call(*args: Any) -> Tensor:
        if not any(isinstance(arg, Tensor) and arg.dtype == torch.bfloat16 for arg in args):
            return function(*args)
        result = function(
            *(arg.float() if isinstance(arg, Tensor) and arg.is_floating_point() else arg for arg in args)
        )
        return result.bfloat16() if result.is_floating_point() else result

    return call
