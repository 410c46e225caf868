"""What can be known before hours of training: does this teacher teach?"""

from kd_ext.preflight.classes import check_num_classes, compare_classes
from kd_ext.preflight.finding import Finding
from kd_ext.preflight.preflight import Preflight

__all__ = ['Finding', 'Preflight', 'check_num_classes', 'compare_classes']
