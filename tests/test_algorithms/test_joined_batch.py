"""Two processes give what one process gives on the joined batch."""

import os
import subprocess
import sys
import textwrap

import joined
import pytest
import torch
from tiny import ROOT
from torch.testing import assert_close

SCRIPT = textwrap.dedent('''
    import sys, torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    sys.path.insert(0, 'tests')
    import kd_ext
    from mmengine.logging import MMLogger
    MMLogger.get_instance('x', logger_name='x', log_level='ERROR')
    import joined
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    records = joined.steps(slice(2 * rank, 2 * rank + 2))
    torch.save(records, f'{sys.argv[1]}.{rank}')
    dist.barrier()
    dist.destroy_process_group()
''')


@pytest.mark.slow
def test_losses_gradients_and_class_means(tmp_path):
    script = tmp_path / 'two.py'
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run',
         '--nproc_per_node=2', '--master_port=29537', str(script),
         str(tmp_path / 'records')],
        cwd=ROOT, text=True, capture_output=True, timeout=280,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
    assert result.returncode == 0, result.stderr[-3000:]
    two = [torch.load(f'{tmp_path / "records"}.{rank}') for rank in (0, 1)]
    one = joined.steps(slice(None))
    terms = 0
    for step, wanted in enumerate(one):
        assert wanted.keys() == two[0][step].keys() == two[1][step].keys()
        for name, value in wanted.items():
            for rank in (0, 1):
                assert_close(two[rank][step][name], value, rtol=1e-9,
                             atol=1e-11, msg=lambda text, where=(step, name):
                             f'{where}: {text}')
            terms += name.startswith('distill.loss_') and float(value) > 0
    assert terms >= 13  # of 15: NC2 needs two classes
