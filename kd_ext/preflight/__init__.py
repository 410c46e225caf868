"""Checks of a distillation before it is trained: is this teacher of use to this student?"""

from kd_ext.preflight.classes import check_num_classes, compare_classes
from kd_ext.preflight.finding import Finding
from kd_ext.preflight.preflight import Preflight

__all__ = ['Finding', 'Preflight', 'check_num_classes', 'compare_classes']
