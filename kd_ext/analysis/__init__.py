from .moments import Moments, Sums
from .neural_collapse import Collapse, measure, nc1, nc2, nc3

__all__ = ['Collapse', 'Moments', 'Sums', 'measure', 'nc1', 'nc2', 'nc3']
