from kd_ext.algorithms.detection_distill import DetectionDistill
from kd_ext.algorithms.distiller import Distiller

__all__ = ['DetectionDistill', 'Distiller']
