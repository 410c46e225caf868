"""``--amp`` without a GPU; MMEngine's own AMP wrapper asks for one."""

import contextlib
import functools
import importlib

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='kd_ext', locations=['kd_ext.engine.amp']
)


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs the model in bfloat16 on the CPU.

    bfloat16 has the range of float32, so no loss scale is needed.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        keep_ops_in_float32()

    @contextlib.contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


@functools.cache
def keep_ops_in_float32():
    """mmcv's CPU kernels know no bfloat16; those that training meets get it.

    ``import mmcv.ops.nms`` would give the function of that name, hence importlib.
    """
    nms = importlib.import_module('mmcv.ops.nms')
    nms.NMSop.apply = staticmethod(_in_float32(nms.NMSop.apply))
    roi_align = importlib.import_module('mmcv.ops.roi_align')
    roi_align.roi_align = _in_float32(roi_align.roi_align)


def _in_float32(function):

    @functools.wraps(function)
    def call(*args):
        low = any(isinstance(arg, torch.Tensor) and arg.dtype == torch.bfloat16 for arg in args)
        if not low:
            return function(*args)
        result = function(
            *(arg.float() if isinstance(arg, torch.Tensor) and arg.is_floating_point() else arg for arg in args)
        )
        return result.bfloat16() if result.is_floating_point() else result

    return call
