"""Reads what modules put out during a forward pass, and stops it early."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Callable

import torch
from torch import Tensor

from kd_ext.errors import expected, type_error


class ForwardDone(BaseException):
    """Unwinds a forward pass once everything asked for is recorded.

    A BaseException, so that no ``except Exception`` in a model catches it.
    """


class Recorder(contextlib.ExitStack):
    """Context in which the outputs of some modules are recorded.

    Hooks exist inside the ``with`` block only, so nothing stays on the model: not in its copies (EMA), not in
    pickles, not between steps.

    Args:
        sources: What to record, by name: modules, or objects with ``register_forward_hook``.
        stop_after: Number of calls of each source after which the pass may stop: :class:`ForwardDone` is raised
            inside the model and swallowed at the end of the ``with`` block.
    """

    def __init__(self, sources: dict[str, Any], stop_after: dict[str, int] | None = None) -> None:
        super().__init__()
        self.sources = sources
        self.stop_after = stop_after
        self.outputs: dict[str, list] = {name: [] for name in sources}
        self._versions: list[tuple[str, Tensor, int]] = []

    def __enter__(self) -> Recorder:
        for name, module in self.sources.items():
            self.callback(module.register_forward_hook(self._hook(name)).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        super().__exit__(kind, error, traceback)
        return kind is ForwardDone

    def _hook(self, name: str) -> Callable[..., None]:
        def record(module: Any, args: Any, output: Any) -> None:
            self.outputs[name].append(output)
            self._versions += [(name, tensor, tensor._version) for tensor in as_tensors(output, name)]
            calls = self.calls()
            if self.stop_after is not None and all(calls[key] >= count for key, count in self.stop_after.items()):
                raise ForwardDone

        return record

    def calls(self) -> dict[str, int]:
        """How often each source ran."""
        return {name: len(calls) for name, calls in self.outputs.items()}

    def levels(self, name: str) -> tuple[Tensor, ...]:
        """All tensors that a source put out, in order.

        Raises:
            RuntimeError: The module did not run, or a later in-place layer overwrote what it put out.
        """
        if any(key == name and tensor._version != version for key, tensor, version in self._versions):
            raise RuntimeError(
                expected(
                    f'the output of {name!r}',
                    'left as it was put out',
                    'a tensor that a later in-place layer overwrote',
                    'Tap the layer after it, or build that layer with inplace=False.',
                )
            )
        levels = as_tensors(self.outputs[name], name)
        if not levels:
            raise RuntimeError(
                expected(
                    f'module {name!r}',
                    'run by every training step',
                    'no call of its forward',
                    'Tap a module that the detector calls.',
                )
            )
        return levels


def as_tensors(output: Any, name: str) -> tuple[Tensor, ...]:
    """A tensor, or a nest of tuples, lists and dicts, as a flat tuple."""
    if isinstance(output, torch.Tensor):
        return (output,)
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return tuple(tensor for item in output if item is not None for tensor in as_tensors(item, name))
    raise type_error(
        f'the output of {name!r}', 'made of tensors', type(output).__name__, 'Tap a module that puts out tensors.'
    )
