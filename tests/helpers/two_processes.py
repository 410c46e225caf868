"""Scripts on two processes of this machine, as torchrun starts them."""

import os
import subprocess
import sys
import textwrap

from tests.helpers.data_sets import ROOT

BEGIN = """
import sys
import torch
import torch.distributed as dist
torch.set_num_threads(1)
import kd_ext
from mmengine.logging import MMLogger
MMLogger.get_instance('x', logger_name='x', log_level='ERROR')
dist.init_process_group('gloo')
rank = dist.get_rank()
"""
END = """
print('rank', rank, 'done', flush=True)
# a rank that goes while gloo's threads still run is aborted by them
dist.barrier()
dist.destroy_process_group()
"""


def on_two(folder, body, *args, timeout=280):
    """Runs ``body``, which finds ``rank`` and ``sys.argv``, on two processes.

    Returns:
        str: What both printed, after both went through to the end.
    """
    script = folder / 'script.py'
    script.write_text(BEGIN + textwrap.dedent(body) + END)
    done = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc_per_node=2',
            str(script),
            *map(str, args),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=timeout,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('done') == 2
    return done.stdout
