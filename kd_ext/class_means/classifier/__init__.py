from kd_ext.class_means.classifier.prototype_classifier import PrototypeClassifier
from kd_ext.class_means.classifier.prototype_head import prototype_head
from kd_ext.class_means.classifier.prototypes import prototype_logits

__all__ = ['PrototypeClassifier', 'prototype_head', 'prototype_logits']
