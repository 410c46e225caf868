from kd_ext.class_means.classifier.prototype_classifier import PrototypeClassifier
from kd_ext.class_means.classifier.prototype_head import prototype_head

__all__ = ['PrototypeClassifier', 'prototype_head']
