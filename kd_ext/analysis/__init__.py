from .moments import Moments
from .neural_collapse import Collapse, measure, nc1, nc2, nc3

__all__ = ['Collapse', 'Moments', 'measure', 'nc1', 'nc2', 'nc3']
