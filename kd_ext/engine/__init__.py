from .exact_resume_hook import ExactResumeHook
from .policies import SafeRunHook
from .progress_hook import ProgressHook
from .publish_hook import PublishStudentHook

__all__ = ['ExactResumeHook', 'ProgressHook', 'PublishStudentHook', 'SafeRunHook']
