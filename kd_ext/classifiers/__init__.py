from .prototype_classifier import PrototypeClassifier
from .prototype_head import prototype_head
from .prototypes import prototype_logits

__all__ = ['PrototypeClassifier', 'prototype_head', 'prototype_logits']
