from .loss_cases import CASES, Case
from .timing import interleave, machine, peak_memory, summarise

__all__ = [
    'CASES', 'Case', 'interleave', 'machine', 'peak_memory', 'summarise'
]
