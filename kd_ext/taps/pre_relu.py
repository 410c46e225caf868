"""Tap ``pre_relu``: the stages of a backbone before their last activation.

This is where Heo et al. read features (A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv
1904.01866), because a ReLU removes information. No table of backbones is needed: one pass of a blank image shows
which module returned a stage and what its input was. A stage that no activation returns (MobileNetV2's linear
bottlenecks, Swin's norms) is read as it is.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, Callable, NamedTuple

from mmcv.cnn.bricks.swish import Swish
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_ext.build.probe import probing
from kd_ext.errors import value_error
from kd_ext.taps.recorder import as_tensors
from kd_ext.taps.tap import PartTap
from kd_ext.taps.watch import Call, Watch

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.Hardswish, Swish)
LOOK_SIZE = 64


class Stage(NamedTuple):
    """Paths in the backbone of the activation that returns a stage and of the BN before it; None without one.

    A residual sum that is added in place to a norm's output counts as the norm's, as in the released code of both
    papers.
    """

    activation: str | None
    norm: str | None


class PreReluTap(PartTap):
    """All stages of the backbone before their last activation."""

    def __init__(self, path: str = 'pre_relu') -> None:
        super().__init__(path)
        self._stages: dict[str, list[Stage]] = {}  # by role: paths fit copies of the model too

    def source(self, model: nn.Module, role: str) -> _StageInputs:
        """An object with ``register_forward_hook``, as :class:`Recorder` needs."""
        backbone = PartTap('backbone').source(model, role)
        if role not in self._stages:
            self._stages[role] = find_stages(backbone, role)
        return _StageInputs(backbone, self._stages[role])

    def norms(self, model: nn.Module, role: str) -> list[nn.Module | None]:
        """The BN whose output each level is, or None."""
        source = self.source(model, role)
        norms = [stage.norm for stage in source.stages]
        return [None if norm is None else source.backbone.get_submodule(norm) for norm in norms]


def find_stages(backbone: nn.Module, role: str = 'student') -> list[Stage]:
    """A :class:`Stage` per map of the backbone; raises a ``ValueError`` if a stage's activation runs again later."""
    names = {module: name for name, module in backbone.named_modules() if not list(module.children())}
    with probing(backbone) as image, Watch(leaves=list(names)) as watch:
        maps = backbone(image[..., :LOOK_SIZE, :LOOK_SIZE])
    return [_stage(names, watch.calls['leaves'], level, role) for level in as_tensors(maps, 'backbone')]


def _stage(names: dict[nn.Module, str], calls: list[Call], level: Tensor, role: str) -> Stage:
    makers = [call for call in calls if call.result is level and isinstance(call.owner, ACTIVATIONS)]
    activation = None
    if makers:
        activation, level = names[makers[-1].owner], makers[-1].args[0]
        if [call for call in calls if call.owner is makers[-1].owner][-1] is not makers[-1]:
            rule = f'read from a {role} each of whose stages ends in an activation of its own'
            found = f'backbone.{activation}, which runs again after the stage'
            raise value_error("at='pre_relu'", rule, found, "Use at='backbone'.")
    # an in-place activation or sum returns its input tensor
    norms = [names[call.owner] for call in calls if call.result is level and isinstance(call.owner, _BatchNorm)]
    return Stage(activation, norms[-1] if norms else None)


class _StageInputs:
    """Stands for a module that outputs all stages before their activation."""

    def __init__(self, backbone: nn.Module, stages: list[Stage]) -> None:
        self.backbone, self.stages = backbone, stages

    def register_forward_hook(self, hook: Callable[..., Any]) -> SimpleNamespace:
        """Calls ``hook`` after the backbone, until ``remove()`` of the returned handle.

        Activations meanwhile work out of place, so that their inputs survive.
        """
        stack = contextlib.ExitStack()
        seen: dict[int, Tensor] = {}

        def keep(level: int) -> Callable[..., None]:
            return lambda module, args: seen.__setitem__(level, args[0])

        def deliver(module: nn.Module, args: tuple, output: Any) -> None:
            maps = as_tensors(output, 'backbone')
            hook(module, args, tuple(seen.pop(level, found) for level, found in enumerate(maps)))

        for level, stage in enumerate(self.stages):
            if stage.activation is not None:
                module: Any = self.backbone.get_submodule(stage.activation)
                stack.callback(module.register_forward_pre_hook(keep(level)).remove)
                if getattr(module, 'inplace', False):
                    module.inplace = False
                    stack.callback(setattr, module, 'inplace', True)
        stack.callback(self.backbone.register_forward_hook(deliver).remove)
        return SimpleNamespace(remove=stack.close)
