"""Records the outputs of modules during a forward pass, and can stop it early."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kd_ext.errors import expected, type_error
from kd_ext.taps.watch import Call, Watch


class ForwardDone(BaseException):
    """Ends a forward pass once everything is recorded.

    It is a BaseException, so that no ``except Exception`` in a model catches it.
    """


class Recorder(Watch):
    """Context in which the outputs of modules are recorded.

    Args:
        sources: What to record, by name: modules, or objects with ``register_forward_hook``.
        stop_after: Number of calls of each source after which the pass may stop. :class:`ForwardDone` is then
            raised inside the model and caught at the end of the ``with`` block.
    """

    def __init__(self, sources: dict[str, Any], stop_after: dict[str, int] | None = None) -> None:
        super().__init__(**sources)
        self.stop_after = stop_after
        self._versions: list[tuple[str, Tensor, int]] = []

    def __exit__(self, *error: Any) -> bool:
        super().__exit__(*error)
        return error[0] is ForwardDone

    def keep(self, name: str, call: Call) -> None:
        super().keep(name, call._replace(args=()))  # which would stay in memory
        self._versions += [(name, tensor, tensor._version) for tensor in as_tensors(call.result, name)]
        done = self.counts()
        if self.stop_after is not None and all(done[key] >= count for key, count in self.stop_after.items()):
            raise ForwardDone

    def counts(self) -> dict[str, int]:
        """How often each source ran."""
        return {name: len(calls) for name, calls in self.calls.items()}

    def levels(self, name: str) -> tuple[Tensor, ...]:
        """All tensors that a source returned, in order.

        Raises a ``RuntimeError`` if the module did not run, or if a later in-place layer overwrote its output.
        """
        text = ''
        if not self.calls[name]:
            remedy = 'Tap a module that the detector calls.'
            text = expected(f'module {name!r}', 'run by every training step', 'no call of its forward', remedy)
        elif any(key == name and tensor._version != version for key, tensor, version in self._versions):
            remedy = 'Tap the layer after it, or build that layer with inplace=False.'
            found = 'a tensor that a later in-place layer overwrote'
            text = expected(f'the output of {name!r}', 'left as it was put out', found, remedy)
        if text:
            raise RuntimeError(text)
        return as_tensors([call.result for call in self.calls[name]], name)


def as_tensors(output: Any, name: str) -> tuple[Tensor, ...]:
    """A tensor, or a nest of tuples, lists and dicts, as a flat tuple."""
    if isinstance(output, torch.Tensor):
        return (output,)
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return tuple(tensor for item in output if item is not None for tensor in as_tensors(item, name))
    remedy = 'Tap a module that puts out tensors.'
    raise type_error(f'the output of {name!r}', 'made of tensors', type(output).__name__, remedy)
