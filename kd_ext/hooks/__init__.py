from .neural_collapse_hook import NeuralCollapseHook
from .progress_hook import ProgressHook

__all__ = ['NeuralCollapseHook', 'ProgressHook']
