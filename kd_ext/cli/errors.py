"""Errors written for people reach them as a message, not as a traceback."""

import os
import re
import signal
import sys
import time

from .interrupt import Interrupted

TYPES = (ValueError, TypeError, KeyError, FileNotFoundError, ImportError,
         FloatingPointError)
FORM = re.compile(r'Expected .+ to be .+, but got ', re.DOTALL)
RED, RESET = '\033[31m', '\033[0m'
HINT = '(KD_EXT_TRACEBACK=1 shows where it was raised)'


def run(main):
    """Calls ``main``; ends the process with a fitting exit status.

    An error of the form of :mod:`kd_ext.messages` gives a short message on
    stderr and status 1, any other its traceback; with KD_EXT_TRACEBACK=1
    every error gives it. An interruption gives 130 (SIGINT) or 143 (SIGTERM).
    """
    try:
        main()
    except Interrupted as stop:
        if rank() == 0:
            print(f'\n{stop}', file=sys.stderr)
        sys.exit(128 + stop.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except TYPES as error:
        text = message(error)
        wants_traceback = os.environ.get('KD_EXT_TRACEBACK', '0') != '0'
        if FORM.match(text) is None or wants_traceback:
            raise
        wait_for_rank_0()
        print(f'{_red(text)}\n{HINT}', file=sys.stderr)
        sys.exit(1)


def message(error):
    """The text of an error; ``str`` of a KeyError would be its repr."""
    return str(error.args[0]) if error.args else ''


def rank():
    """The rank that the launcher gave, known before torch.distributed is."""
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        if os.environ.get(name, '').isdigit():
            return int(os.environ[name])
    return 0


def wait_for_rank_0(seconds=5):
    """Leaves it to rank 0 to report what happens on every rank.

    A launcher ends all processes when the first has failed, so the others
    get past this only with an error that rank 0 does not have.
    """
    if rank() != 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(seconds)


def _red(text):
    return f'{RED}{text}{RESET}' if sys.stderr.isatty() else text
