from .exact_resume_hook import ExactResumeHook
from .policies import SafeRunHook
from .progress_hook import ProgressHook

__all__ = ['ExactResumeHook', 'ProgressHook', 'SafeRunHook']
