"""Any mmdet head, with a classifier of class means in place of its classification layer."""

from __future__ import annotations

from typing import Any

from mmcv.ops import MaskedConv2d
from torch import nn

from kd_ext.errors import value_error
from kd_ext.registry import MODELS
from kd_ext.taps.heads.dense_kinds import KINDS, dense_kind

# classification layers by name: of dense heads by kind, of RoI heads and DETR (fc_cls), other query heads, CenterNet.
# Each is a layer, a list (levels, decoder layers) or a sequence ending in one. SSD's cls_convs are ordinary
# convolutions in other heads.
DENSE = {name: kind.layer for name, kind in KINDS.items() if not kind.before}
LAYERS = (
    *('fc_cls', 'cls_branches', 'aux_cls_branches', 'cls_embed', 'heatmap_head'),
    *dict.fromkeys(layer for name, layer in DENSE.items() if name != 'SSDHead'),
)


def _layer_names(head: nn.Module, layer: str | None) -> list[str]:
    """Attributes of the head that hold its classification layers."""
    kind = dense_kind(head)
    names = [layer] if layer else [kind.layer] if kind and not kind.before else LAYERS
    found = [name for name in names if isinstance(getattr(head, name, None), nn.Module)]
    if not found:
        rule, remedy = f'one of its attributes {", ".join(names)}', 'Give its name as layer of kd_ext.PrototypeHead.'
        raise value_error(f'the classification layer of {type(head).__name__}', rule, 'none of them', remedy)
    return found


class _Replacement:
    """Replaces layers by classifiers; a layer that occurs twice gets one classifier."""

    def __init__(self, head: nn.Module, cfg: dict) -> None:
        self.head, self.cfg = head, cfg
        self.made: dict = {}

    def __call__(self, module: nn.Module) -> nn.Module:
        """The replacement of a module; lists and sequences are kept, and changed in place."""
        if isinstance(module, nn.ModuleList):
            for index, item in enumerate(module):
                module[index] = self(item)
            return module
        if isinstance(module, nn.Sequential) and len(module):
            module[-1] = self(module[-1])
            return module
        if module not in self.made:
            # keyed by the module, not its id: ids of freed modules are reused
            self.made[module] = self._classifier(module)
        return self.made[module]

    def _classifier(self, module: nn.Module) -> nn.Module:
        if isinstance(module, nn.Linear):
            sizes = dict(in_features=module.in_features, out_features=module.out_features)
        elif (
            isinstance(module, nn.Conv2d)
            and module.groups == 1
            and set(module.stride) == {1}
            and not isinstance(module, MaskedConv2d)
        ):
            sizes = dict(
                in_features=module.in_channels,
                out_features=module.out_channels,
                num_anchors=self._anchors(module),
                channels_first=True,
            )
        else:
            raise self._error('nn.Linear, or a plain nn.Conv2d', type(module).__name__)
        return MODELS.build({'type': 'kd_ext.PrototypeClassifier', **self.cfg, **sizes})

    def _anchors(self, module: Any) -> int:
        logits: Any = getattr(self.head, 'cls_out_channels', None)
        logits = logits or self.head.num_classes
        if module.out_channels % logits:
            raise self._error(f'{logits} logits for each anchor', f'{module.out_channels} channels')
        return module.out_channels // logits

    def _error(self, rule: str, value: Any) -> ValueError:
        return value_error(
            f'the classification layer of {type(self.head).__name__}',
            rule,
            value,
            'kd_ext.PrototypeHead cannot replace it.',
        )


@MODELS.register_module(name='PrototypeHead')
def prototype_head(head: dict, classifier: dict, layer: str | None = None, **kwargs: Any) -> nn.Module:
    """Builds a head and replaces its classification layers by ``PrototypeClassifier``.

    For heads without ``cls_predictor_cfg``, that is dense heads and query heads. A 3x3 convolution is replaced by
    a 1x1 one. Shared layers stay shared, lists stay lists, and names in the checkpoint extend those of the
    replaced layers.

    Args:
        head: Config of the head, in mmdet's scope unless prefixed.
        classifier: Settings of ``PrototypeClassifier`` except the sizes, which the replaced layer gives; ``type``
            may name another class.
        layer: The head's attribute, if it is not one of the known names.
        kwargs: What the detector adds to the config of its head, such as ``train_cfg``.

    Returns:
        The head, not initialised.

    Raises:
        ValueError: The head has no such layer, or one that cannot be replaced.
    """
    from mmdet.registry import MODELS as MMDET_MODELS

    built = MMDET_MODELS.build({**head, **kwargs})
    replacement = _Replacement(built, classifier)
    for name in _layer_names(built, layer):
        setattr(built, name, replacement(getattr(built, name)))
    return built
