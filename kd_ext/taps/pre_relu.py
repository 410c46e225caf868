"""Tap ``pre_relu``: the stages of a backbone before their last activation.

Where feature distillation reads (Heo et al., A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv
1904.01866): what a ReLU takes away is still there. No table of backbones: one pass on a blank image shows which
module put out a stage and what that module was given. A stage that no activation puts out (MobileNetV2's linear
bottlenecks, Swin's norms) is read as it is.
"""

from typing import NamedTuple, Optional

from mmcv.cnn.bricks.swish import Swish
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_ext.build.probe import probing
from kd_ext.errors import value_error
from kd_ext.taps.recorder import as_tensors
from kd_ext.taps.tap import PartTap

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.Hardswish, Swish)
LOOK_SIZE = 64


class Stage(NamedTuple):
    """Paths in the backbone of what makes a stage; None where nothing does.

    A residual sum that is added in place to a norm's output counts as the norm's, as in the released code of both
    papers.
    """

    activation: Optional[str]
    norm: Optional[str]


class PreReluTap(PartTap):
    """All stages of the backbone before their last activation."""

    def __init__(self, path='pre_relu'):
        super().__init__(path)
        self._stages = {}  # by role: paths, which are those of copies too

    def source(self, model, role):
        """What :class:`Recorder` needs: ``register_forward_hook``."""
        backbone = PartTap('backbone').source(model, role)
        if role not in self._stages:
            self._stages[role] = find_stages(backbone, role)
        return _StageInputs(backbone, self._stages[role])

    def norms(self, model, role):
        """The BN whose output a level is, or None: list."""
        source = self.source(model, role)
        return [stage.norm and source.backbone.get_submodule(stage.norm) for stage in source.stages]


def find_stages(backbone, role='student'):
    """A :class:`Stage` for each map that the backbone puts out.

    Raises:
        ValueError: The activation that puts out a stage runs again later.
    """
    calls = []

    def record(name):
        return lambda module, args, output: calls.append((name, module, args[0] if args else None, output))

    handles = [
        module.register_forward_hook(record(name))
        for name, module in backbone.named_modules()
        if not list(module.children())
    ]
    try:
        with probing(backbone) as image:
            maps = backbone(image[..., :LOOK_SIZE, :LOOK_SIZE])
    finally:
        for handle in handles:
            handle.remove()
    return [_stage(calls, level, role) for level in as_tensors(maps, 'backbone')]


def _stage(calls, level, role):
    makers = [call for call in calls if call[3] is level]
    acts = [call for call in makers if isinstance(call[1], ACTIVATIONS)]
    activation = None
    if acts:
        activation, module, level, _ = acts[-1]
        if [call for call in calls if call[1] is module][-1] is not acts[-1]:
            raise value_error(
                "at='pre_relu'",
                f'read from a {role} each of whose stages ends in an activation of its own',
                f'backbone.{activation}, which runs again after the stage',
                "Use at='backbone'.",
            )
    # an in-place activation or sum leaves the tensor the one it was
    norms = [name for name, module, _, output in calls if output is level and isinstance(module, _BatchNorm)]
    return Stage(activation, norms[-1] if norms else None)


class _StageInputs:
    """Stands for a module that puts out all stages before activation."""

    def __init__(self, backbone, stages):
        self.backbone, self.stages = backbone, stages

    def register_forward_hook(self, hook):
        """Calls ``hook`` after the backbone: a handle with ``remove()``."""
        return _Handle(self.backbone, self.stages, hook)


class _Handle:
    """The hooks of one pass. Activations work out of place meanwhile, so that what they were given stays."""

    def __init__(self, backbone, stages, hook):
        seen, self.handles, self.in_place = {}, [], []

        def keep(level):
            return lambda module, args: seen.__setitem__(level, args[0])

        def deliver(module, args, output):
            levels = [seen.pop(level, maps) for level, maps in enumerate(as_tensors(output, 'backbone'))]
            hook(module, args, tuple(levels))

        for level, stage in enumerate(stages):
            if stage.activation is None:
                continue
            module = backbone.get_submodule(stage.activation)
            self.handles.append(module.register_forward_pre_hook(keep(level)))
            if getattr(module, 'inplace', False):
                module.inplace = False
                self.in_place.append(module)
        self.handles.append(backbone.register_forward_hook(deliver))

    def remove(self):
        for handle in self.handles:
            handle.remove()
        for module in self.in_place:
            module.inplace = True
