"""Registries of scope ``kd_ext``, children of MMEngine's.

MMEngine imports this module by itself for a type written ``kd_ext.X``.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='kd_ext',
    locations=['kd_ext.losses', 'kd_ext.algorithms', 'kd_ext.connectors', 'kd_ext.class_means.classifier'],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='kd_ext',
    locations=['kd_ext.engine', 'kd_ext.analysis.neural_collapse', 'kd_ext.report', 'kd_ext.pseudo_labels.weights'],
)
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='kd_ext', locations=['kd_ext.pseudo_labels.weights'])
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='kd_ext', locations=['kd_ext.pseudo_labels.weights']
)
