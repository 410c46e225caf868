"""Where the host may read a tensor without waiting for a device."""

from __future__ import annotations

from torch import Tensor

# types of devices that compute before a call returns; benchmarks.gpu_check empties it, so that a CPU takes the ways of
# a GPU
PROMPT = {'cpu'}


def free_to_read(tensor: Tensor) -> bool:
    """Whether reading a value of ``tensor`` waits for nothing."""
    return tensor.device.type in PROMPT
