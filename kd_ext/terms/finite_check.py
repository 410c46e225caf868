"""Checks that losses are finite, without making the host wait for a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, Iterable

import torch
from torch import Tensor

from kd_ext.losses.waiting import free_to_read
from kd_ext.terms.reach import is_compiling


class FiniteCheck:
    """Calls a function that raises where a value is not finite.

    Values on a CPU are read at once. On a GPU a single flag is copied in the background and read when the backward
    pass has been queued: the forward pass is done by then or soon, and the device goes on with the backward pass
    meanwhile. The error leaves ``backward()``, so weights and checkpoints never see such a value.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tensor, Any, Callable[[], None], AbstractContextManager]] = []

    def __call__(
        self, values: Iterable[Tensor], raise_fault: Callable[[], None], graph: Iterable[Any] | None = None
    ) -> None:
        """Checks scalars. Without a gradient there is no backward pass to wait for, so they are read at once.

        Args:
            values: All on one device.
            raise_fault: Finds the value that is not finite and raises.
            graph: What the backward pass goes through, if not ``values``.
        """
        values = list(values)
        flag = torch.isfinite(torch.stack([value.detach() for value in values])).all()
        found = values if graph is None else graph
        leading = next((one for one in found if isinstance(one, Tensor) and one.requires_grad), None)
        if leading is None or free_to_read(flag) or is_compiling():
            if not bool(flag):
                raise_fault()
            return
        copied, event = flag.to('cpu', non_blocking=True), None
        if flag.is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(flag.device))
        self._pending.append((copied, event, raise_fault, _same_autocast(flag.device.type)))
        leading.register_hook(self._at_end_of_backward)

    def settle(self) -> None:
        """Reads what is still to be read; called at the end of the backward pass, and before the next step."""
        pending, self._pending = self._pending, []
        for copied, event, raise_fault, autocast in pending:
            if event is not None:
                event.synchronize()
            if not copied.numpy():
                with torch.no_grad(), autocast:
                    raise_fault()

    def _at_end_of_backward(self, grad: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(self.settle)

    def __deepcopy__(self, memo: dict) -> FiniteCheck:
        return FiniteCheck()

    def __reduce__(self) -> tuple:
        return FiniteCheck, ()


def _same_autocast(kind: str) -> AbstractContextManager:
    """The autocast of this moment, for a later one; none on a torch (< 2.4) that does not tell."""
    if not hasattr(torch, 'get_autocast_dtype'):
        return nullcontext()
    return torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
