"""Runs a function in a process of its own, which may be killed."""

import multiprocessing
import os
import signal
import threading

_CONTEXT = multiprocessing.get_context('forkserver')
# imported once, in a process that computes nothing: its children start fast
_CONTEXT.set_forkserver_preload([
    'kd_ext', 'kd_ext.algorithms', 'kd_ext.cli', 'kd_ext.losses',
    'kd_ext.connectors', 'mmdet.datasets', 'mmdet.engine', 'mmdet.evaluation',
    'mmdet.models', 'mmdet.visualization', 'mmrazor.models'])


def apart(function, *args, timeout=120):
    """Runs ``function(*args)``, importable by name.

    Returns:
        int: Its exit status, negative where a signal ended it.
    """
    before = os.environ.get('OMP_NUM_THREADS')
    os.environ['OMP_NUM_THREADS'] = '1'
    process = _CONTEXT.Process(target=_quietly, args=(function, *args))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f'{function.__name__} took {timeout} s')
    if before is None:
        del os.environ['OMP_NUM_THREADS']
    return process.exitcode


def _quietly(function, *args):
    import torch
    torch.set_num_threads(1)
    function(*args)


def go_on(config, kill_at=None, delay=0.):
    """Trains as ``tools/train.py CONFIG --resume`` does, in its own process.

    With ``kill_at`` the process is killed ``delay`` seconds after the start
    of that iteration, wherever it is by then.
    """
    from mmengine.config import Config
    from mmengine.hooks import Hook

    from kd_ext import cli

    class Kill(Hook):

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == kill_at:
                threading.Timer(delay, os.kill,
                                (os.getpid(), signal.SIGKILL)).start()

    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(launcher='none', resume=True, load_from=None))
    cli.choose_checkpoint(cfg)
    runner = cli.build_runner(cfg)
    runner.register_hook(Kill())
    cli.train(runner, cli.Interruption())
