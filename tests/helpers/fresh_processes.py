"""Interpreters that start fast: forks of one that has imported torch and MMEngine, and nothing of mmdet or kd_ext.

What a fork computes, imports and prints is its own, as in ``python -c``. Starting ``python`` costs seconds more,
nearly all of them for torch.
"""

import atexit
import functools
import json
import os
import select
import subprocess
import sys
import tempfile
from types import SimpleNamespace

from tests.helpers.data_sets import ROOT

SERVER = """
import atexit, json, os, runpy, sys, traceback
import cv2, matplotlib.pyplot, mmengine.runner, rich.console, scipy.stats, torch

def run(job):
    os.setsid()
    os.chdir(job['cwd'])
    os.environ.clear()
    os.environ.update(job['env'])
    for stream, name in ((0, os.devnull), (1, job['stdout']), (2, job['stderr'])):
        os.dup2(os.open(name, os.O_RDONLY if stream == 0 else os.O_WRONLY | os.O_APPEND), stream)
    kind, *sys.argv = job['args']
    sys.path[:0] = [place for place in os.environ.get('PYTHONPATH', '').split(os.pathsep) if place]
    try:
        if kind == '-c':
            exec(compile(sys.argv[0], '<string>', 'exec'), {'__name__': '__main__'})
        elif kind == '-m':
            sys.path.insert(0, job['cwd'])
            runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
        else:
            sys.argv.insert(0, kind)
            sys.path.insert(0, os.path.dirname(os.path.abspath(kind)))
            runpy.run_path(kind, run_name='__main__')
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in iter(sys.stdin.readline, ''):
    pid = os.fork()
    if not pid:
        status = run(json.loads(line))
        atexit._run_exitfuncs()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@functools.cache
def _server():
    """Started by the first test that asks for it, and ended with this process."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT / 'tests/helpers/no_layout')}
    server = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        bufsize=1,
    )
    atexit.register(server.communicate)
    return server


def run(*args, cwd=ROOT, env=None, one_stream=False, timeout=280):
    """``python *args``, where the arguments begin with ``-c``, ``-m`` or a script: returncode, stdout and stderr."""
    server = _server()
    with tempfile.NamedTemporaryFile('r') as stdout, tempfile.NamedTemporaryFile('r') as stderr:
        job = dict(
            args=list(map(str, args)),
            cwd=str(cwd),
            env=dict(os.environ if env is None else env),
            stdout=stdout.name,
            stderr=(stdout if one_stream else stderr).name,
        )
        server.stdin.write(json.dumps(job) + '\n')
        pid = int(server.stdout.readline())
        if not select.select([server.stdout], [], [], timeout)[0]:
            os.killpg(pid, 9)
        status = int(server.stdout.readline())
        return SimpleNamespace(returncode=status, stdout=stdout.read(), stderr=stderr.read())


def fresh(script, **changes):
    """Runs the text of a script from the root of the repository: stdout."""
    done = run('-c', script, **changes)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
