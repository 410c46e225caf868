from .exact_resume_hook import ExactResumeHook
from .neural_collapse_hook import NeuralCollapseHook
from .progress_hook import ProgressHook

__all__ = ['ExactResumeHook', 'NeuralCollapseHook', 'ProgressHook']
