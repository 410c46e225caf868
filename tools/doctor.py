"""Checks the installation; names each problem and its exact fix.

    python tools/doctor.py [--json]

Exit status 1 if there is a problem, 0 otherwise. It uses nothing of kd_ext and
imports only the standard library outside of the checks, so that it runs
whatever is broken.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(HERE)
from doctor_checks import CHECKS, SETUP, install  # noqa: E402


def diagnose(check):
    """Runs one check; a crash in it is a problem like any other."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ok, detail, fix = check()
    except ModuleNotFoundError as error:
        missing = (error.name or '').split('.')[0]
        ok, detail, fix = False, str(error), install(missing)
    except (Exception, SystemExit) as error:
        ok, detail, fix = False, f'{type(error).__name__}: {error}', SETUP
    detail = ' '.join(str(detail).split())
    return dict(ok=bool(ok), detail=detail[:400], fix='' if ok else fix)


def report(result):
    """The one line of a check."""
    line = f'{"ok" if result["ok"] else "problem":8}{result["name"]}: '
    fix = f'. Fix: {result["fix"]}' if result['fix'] else ''
    return line + result['detail'].rstrip('.') + fix


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', action='store_true', help='print the same as JSON')
    args = parser.parse_args(argv)
    warnings.simplefilter('ignore')
    results = []
    for name, check in CHECKS.items():
        results.append(dict(name=name, **diagnose(check)))
        if not args.json:
            print(report(results[-1]), flush=True)
    problems = sum(not result['ok'] for result in results)
    own = [os.path.join(HERE, '..', name) for name in ('.venv', '.venv-onedl')]
    own = [folder for folder in own if os.path.isdir(folder)]
    if own and not any(os.path.samefile(folder, sys.prefix) for folder in own):
        print(f'Checked {sys.executable}, not the environment that tools/setup.sh makes.', file=sys.stderr)
    if args.json:
        print(json.dumps(dict(ok=not problems, checks=results), indent=2))
    return int(problems > 0)


if __name__ == '__main__':
    sys.exit(main())
