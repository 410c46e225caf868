"""The form of all error messages: what was expected, what was given, how to correct it."""

from __future__ import annotations

import contextlib
import difflib
import math
import pickle
import re
from typing import Any, Iterable, Iterator, Sequence

import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn


class Message(str):
    """A text of kd_ext for users; :func:`is_ours` recognises errors by this type."""


def expected(name: str, rule: str, value: Any, remedy: str = '') -> Message:
    """Formats ``Expected <name> to be <rule>, but got <value>. <remedy>`` as the argument of an error."""
    text = f'Expected {name} to be {rule}, but got {value}.'
    return Message(f'{text} {remedy}' if remedy else text)


def value_error(name: str, rule: str, value: Any, remedy: str = '') -> ValueError:
    """A ``ValueError`` with the text of :func:`expected`."""
    return ValueError(expected(name, rule, value, remedy))


def type_error(name: str, rule: str, value: Any, remedy: str = '') -> TypeError:
    """A ``TypeError`` with the text of :func:`expected`."""
    return TypeError(expected(name, rule, value, remedy))


def file_error(name: str, rule: str, value: Any, remedy: str = '') -> FileNotFoundError:
    """A ``FileNotFoundError`` with the text of :func:`expected`."""
    return FileNotFoundError(expected(name, rule, value, remedy))


def is_ours(error: BaseException) -> bool:
    """Whether an error's text is a :class:`Message`, whatever its type."""
    return bool(error.args) and isinstance(error.args[0], Message)


@contextlib.contextmanager
def explaining(
    name: str,
    rule: str,
    value: str = '{}',
    remedy: str = '',
    faults: type[Exception] | tuple[type[Exception], ...] = Exception,
    kind: type[Exception] = ValueError,
) -> Iterator[None]:
    """Context that turns errors of other code into a ``kind`` with the text of :func:`expected`.

    Args:
        name, rule, remedy: As in :func:`expected`.
        value: With ``{}`` in the place of the error, ``KeyError: 'a'``.
        faults: The types of errors; messages of kd_ext and CUDA's out-of-memory error pass unchanged.
        kind: The error to raise.
    """
    try:
        yield
    except faults as error:
        if is_ours(error) or isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        # torch's own text on files that could run code advises to run it
        text = reason(error) if isinstance(error, pickle.UnpicklingError) else f'{type(error).__name__}: {error}'
        raise kind(expected(name, rule, value.replace('{}', text.strip(' .')), remedy)) from error


def check_keys(name: str, keys: Iterable[Any], known: Sequence[str]) -> None:
    """Raises a ``ValueError`` with near matches at the first key that is not known."""
    for key in keys:
        if key not in known:
            raise value_error(name, f'made of {", ".join(known)}', repr(key), near_matches(key, known))


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that fits into a float, and not a bool."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # 10**400
        return False


def near_matches(word: Any, choices: Iterable[Any], count: int = 5) -> str:
    """Formats the choices nearest to ``word``, ``Did you mean: a, b?``, or else the first choices."""
    choices = list(dict.fromkeys(map(str, choices)))
    near = difflib.get_close_matches(str(word), choices, count, cutoff=0.5)
    if near:
        return f'Did you mean: {", ".join(near)}?'
    shown = ', '.join(choices[:count])
    more = len(choices) - count
    return f'Known: {shown}' + (f', and {more} more.' if more > 0 else '.')


# torch's own variable, which MMEngine's resuming obeys too
TRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'


def refusal(name: str, error: pickle.UnpicklingError, path: str | None = None) -> Message:
    """The message for a file that ``torch.load`` refuses as unsafe; ``name`` is the setting that names the file."""
    what = reason(error)
    return expected(
        name,
        'a readable checkpoint of tensors, plain values and the log of MMEngine',
        f'{path!r} ({what})' if path else f'a file where {what}',
        'To read more could run code from the file. If it is damaged, fetch '
        'or train it again; if you trust where it comes from, set the '
        f'environment variable {TRUST}.',
    )


def reason(error: pickle.UnpicklingError) -> str:
    """Why ``torch.load`` refused a file, in short; its own text advises to run the file's code."""
    text = str(error)
    named = re.search(r'GLOBAL (\S+)', text)
    if named:
        return f'it names {named[1]}'
    text = text.rpartition('WeightsUnpickler error: ')[2].strip()
    return text.partition('\n')[0][:200]


def iteration() -> int | None:
    """The runner's iteration, or None outside a training."""
    return MessageHub.get_current_instance().runtime_info.get('iter')


def loss_parts(losses: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The tensors, with their names, that a detector's loss is the sum of."""
    for name, value in losses.items():
        if 'loss' in name:
            for part in value if isinstance(value, list) else [value]:
                yield name, part


def _autocast_dtype(kind: str) -> torch.dtype | None:
    """The dtype of autocast on a kind of device; None where it is off."""
    if hasattr(torch, 'get_autocast_dtype'):
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if kind == 'cpu':  # torch before 2.4
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def raise_task_fault(losses: dict[str, Any], total: Tensor, data_samples: list | None) -> None:
    """Names what is not finite in the student's own loss.

    Under float16 autocast it does nothing, because the gradient scaler skips such a step.

    Args:
        losses: As the detector returns them.
        total: Their sum, which is not finite.
        data_samples: Of the batch; the message names their images.

    Raises:
        FloatingPointError: Always, but under float16 autocast.
    """
    if _autocast_dtype(total.device.type) == torch.float16:
        return
    bad = dict.fromkeys(name for name, part in loss_parts(losses) if not bool(torch.isfinite(part).all()))
    images = [str(path) for path in (getattr(sample, 'img_path', None) for sample in data_samples or ()) if path]
    raise FloatingPointError(
        expected(
            f'{" and ".join(f"student.{name}" for name in bad)} at iteration {iteration()}',
            'finite',
            f'{float(total)}' + (f' on {", ".join(images)}' if images else ''),
            'Lower the learning rate, clip gradients, or look at the boxes of '
            'these images; --resume goes on from the last checkpoint.',
        )
    )


def bad_weights(model: nn.Module) -> str:
    """``2 of 9 values of backbone.conv1.weight`` if a weight or buffer is not finite, else an empty string."""
    for name, value in model.state_dict().items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            return f'{bad} of {value.numel()} values of {name}'
    return ''
