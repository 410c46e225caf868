"""Trainings in processes of their own, which may be killed."""

import io
import multiprocessing
import os
import resource
import signal
import tempfile
import threading
import time

_CONTEXT = multiprocessing.get_context('forkserver')
# imported once, in a process that computes nothing: its children start fast
_CONTEXT.set_forkserver_preload(
    [
        'kd_ext',
        'kd_ext.algorithms',
        'kd_ext.cli.train',
        'kd_ext.losses',
        'kd_ext.connectors',
        'mmdet.datasets',
        'mmdet.engine',
        'mmdet.evaluation',
        'mmdet.models',
        'mmdet.visualization',
        'mmrazor.models',
    ]
)
KILLED = -signal.SIGKILL


def apart(function, *args, timeout=120):
    """Runs a function of this module in its own process.

    Returns:
        tuple[int, str]: Its exit status, negative where a signal ended it,
        and what it printed.
    """
    with tempfile.NamedTemporaryFile('r') as output:
        process = _CONTEXT.Process(target=_run, args=(output.name, function, *args))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f'after {timeout} s: {output.read()[-3000:]}')
        return process.exitcode, output.read()


def _run(output, function, *args):
    import torch

    from kd_ext.cli.errors import run

    output = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    torch.set_num_threads(1)
    run(lambda: function(*args))


def go_on(config, kill_at=None, delay=0.0):
    """Trains as ``tools/train.py CONFIG --resume`` does.

    With ``kill_at`` the process is killed ``delay`` seconds after the start
    of that iteration, wherever it is by then.
    """
    from mmengine.config import Config
    from mmengine.hooks import Hook

    from kd_ext.cli.runner import build_runner
    from kd_ext.engine.interruption import Interruption, train
    from kd_ext.engine.resume import choose_checkpoint

    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))

    class Kill(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == kill_at:
                timer.start()

        def after_train(self, runner):
            if kill_at is not None:
                timer.join()

    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(launcher='none', resume=True, load_from=None))
    choose_checkpoint(cfg)
    runner = build_runner(cfg)
    runner.register_hook(Kill())
    train(runner, Interruption())


def go_on_dying(config, name):
    """Trains until a file is saved, and is killed when half of it is."""
    from mmengine.fileio.backends import local_backend

    class Half(io.FileIO):
        def write(self, content):
            super().write(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    def opened(path, *args, **kwargs):
        return Half(path, 'w') if name in str(path) else open(path, *args, **kwargs)

    local_backend.open = opened
    go_on(config)


def go_on_limited(config, size):
    """Trains where no file can grow beyond ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    go_on(config)


def go_on_without_worker(config, at):
    """Trains where a data worker is killed at an iteration."""
    from mmengine.runner import Runner

    original = Runner.call_hook

    def call_hook(self, name, **kwargs):
        original(self, name, **kwargs)
        if name == 'before_train_iter' and self.iter == at:
            multiprocessing.active_children()[0].kill()
            time.sleep(2)  # torch raises when it hears of it

    Runner.call_hook = call_hook
    go_on(config)
