"""What can be known before hours of training: does this teacher teach?"""

from .classes import compare_classes
from .finding import Finding
from .preflight import Preflight

__all__ = ['Finding', 'Preflight', 'compare_classes']
