"""Reads what modules put out during a forward pass, and stops it early."""

import torch

from kd_ext.errors import expected, type_error


class ForwardDone(BaseException):
    """Unwinds a forward pass once everything asked for is recorded.

    A BaseException, so that no ``except Exception`` in a model eats it.
    """


class Recorder:
    """Context in which the outputs of some modules are recorded.

    Hooks exist inside the ``with`` block only, so nothing stays on the model: not in its copies (EMA), not in
    pickles, not between steps.

    Args:
        sources (dict[str, nn.Module]): What to record, by name.
        stop_after (dict[str, int], optional): Number of calls of each source after which the pass may stop; raises
            :class:`ForwardDone` inside the model, which leaving the ``with`` block swallows.
    """

    def __init__(self, sources, stop_after=None):
        self.sources = sources
        self.stop_after = stop_after
        self.outputs = {name: [] for name in sources}
        self._versions = []
        self._handles = []

    def __enter__(self):
        for name, module in self.sources.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, kind, error, traceback):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return kind is ForwardDone

    def _hook(self, name):

        def record(module, args, output):
            self.outputs[name].append(output)
            for tensor in as_tensors(output, name):
                self._versions.append((name, tensor, tensor._version))
            if self.stop_after is not None and all(
                len(self.outputs[key]) >= count for key, count in self.stop_after.items()
            ):
                raise ForwardDone

        return record

    def calls(self):
        """How often each source ran: dict[str, int]."""
        return {name: len(calls) for name, calls in self.outputs.items()}

    def levels(self, name):
        """All tensors that a source put out, in order: tuple of tensors.

        Raises:
            RuntimeError: The module did not run, or a later in-place layer overwrote what it put out.
        """
        for key, tensor, version in self._versions:
            if key == name and tensor._version != version:
                raise RuntimeError(
                    expected(
                        f'the output of {name!r}',
                        'left as it was put out',
                        'a tensor that a later in-place layer overwrote',
                        'Tap the layer after it, or build that layer with inplace=False.',
                    )
                )
        levels = tuple(tensor for output in self.outputs[name] for tensor in as_tensors(output, name))
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


def as_tensors(output, name):
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
