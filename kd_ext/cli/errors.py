"""Shows errors meant for users as a message, without a traceback."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import time
from typing import Any, Callable

from rich.console import Console

from kd_ext.engine import policies
from kd_ext.engine.interruption import Interrupted
from kd_ext.engine.resume import rank
from kd_ext.errors import expected, is_ours, refusal

RED, RESET = '\033[31m', '\033[0m'
HINT = '(KD_EXT_TRACEBACK=1 shows where it was raised)'


def tool(main: Callable[..., Any]) -> Callable[..., None]:
    """Decorates the ``main`` of a tool with :func:`run`."""

    @functools.wraps(main)
    def reporting(*args: Any, **kwargs: Any) -> None:
        run(lambda: main(*args, **kwargs))

    return reporting


def run(main: Callable[[], Any]) -> None:
    """Calls ``main`` under :mod:`kd_ext.engine.policies` and ends the process with an exit status.

    Messages of :mod:`kd_ext.errors`, and checkpoints that would run code, are printed to stderr with status 1.
    Other errors keep their traceback; KD_EXT_TRACEBACK=1 keeps every traceback. Interruptions give 130 (SIGINT) or
    143 (SIGTERM).
    """
    policies.apply()
    try:
        main()
        sys.stdout.flush()
    except Interrupted as stop:
        if rank() == 0:
            print(f'\n{stop}', file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        text = message(error)
        wants_traceback = os.environ.get('KD_EXT_TRACEBACK', '0') != '0'
        if text is None or wants_traceback:
            raise
        wait_for_rank_0()
        print(f'{_red(text)}\n{HINT}', file=sys.stderr)
        sys.exit(1)


def message(error: BaseException) -> str | None:
    """What to tell in place of a traceback, or None."""
    if isinstance(error, pickle.UnpicklingError):
        return refusal('the checkpoint', error)
    # str of a KeyError would be the repr of its text
    if is_ours(error):
        return str(error.args[0])
    if isinstance(error, OSError) and error.filename is None and not _writes(sys.stdout):
        # what has no file name was printed
        return expected('standard output', 'writable', str(error), 'Is the disk full, or the pipe closed?')
    return None


def _writes(stream: Any) -> bool:
    try:
        stream.write('\n')
        stream.flush()
    except OSError:
        # else Python would try again at exit, and fail with a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def console() -> Console:
    """A console on stdout, 80 columns wide if COLUMNS is too small for a table (MPI and cron set it to 0)."""
    columns = os.environ.get('COLUMNS', '')
    return Console(width=80 if columns.isdigit() and int(columns) < 40 else None)


def wait_for_rank_0(seconds: float = 5) -> None:
    """Lets rank 0 report an error that every rank has.

    A launcher ends all processes when the first fails, so another rank gets past the wait only if rank 0 did not
    fail.
    """
    if rank() != 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(seconds)


def _red(text: str) -> str:
    return f'{RED}{text}{RESET}' if sys.stderr.isatty() else text
