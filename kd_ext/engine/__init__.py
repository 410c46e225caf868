from .exact_resume_hook import ExactResumeHook
from .progress_hook import ProgressHook

__all__ = ['ExactResumeHook', 'ProgressHook']
