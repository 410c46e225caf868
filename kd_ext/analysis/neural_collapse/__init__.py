from .hook import NeuralCollapseHook
from .measures import Collapse, measure, nc1, nc2, nc3

__all__ = ['Collapse', 'NeuralCollapseHook', 'measure', 'nc1', 'nc2', 'nc3']
