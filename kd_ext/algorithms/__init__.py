from .detection_distill import DetectionDistill
from .distiller import Distiller

__all__ = ['DetectionDistill', 'Distiller']
