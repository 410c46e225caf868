"""The same losses on two processes as on one, and no unused parameter."""

import os
import subprocess
import sys
import textwrap

import pytest
from tiny import ROOT

SCRIPT = textwrap.dedent('''
    import os, sys, torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    sys.path.insert(0, 'tests')
    import kd_ext
    from mmengine.logging import MMLogger
    MMLogger.get_instance('x', logger_name='x', log_level='ERROR')
    from mmengine.model import MMDistributedDataParallel
    from tiny import batch, distill, fcos, rcka
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    model = distill(teacher=fcos(8, width=24), rcka=rcka(),
                    pkd=dict(type='mmrazor.PKDLoss', at='backbone'))
    wrapped = MMDistributedDataParallel(model)
    for step in range(3):
        model.distillation_stopped = step == 2
        data = batch(seed=step * 2 + rank)
        if rank == 1 and step == 1:  # images without a single box
            for sample in data['data_samples']:
                sample.gt_instances = sample.gt_instances[:0]
        data = model.data_preprocessor(data, True)
        losses = wrapped(**data, mode='loss')
        wrapped.zero_grad()
        model.parse_losses(losses)[0].backward()
        for name in ('rcka', 'pkd'):
            value = float(losses[f'distill.loss_{name}'].detach())
            assert (value > 0) is (step < 2), (name, step, value)
        projectors = list(model.distiller.parameters())
        assert projectors and all(p.grad is not None for p in projectors)
        assert any(p.grad.any() for p in projectors) is (step < 2)
        total = torch.stack([p.grad.double().norm()
                             for p in model.parameters()
                             if p.grad is not None]).norm()
        both = [torch.zeros_like(total) for _ in range(2)]
        dist.all_gather(both, total)
        assert torch.equal(*both)
    print('rank', rank, 'done', flush=True)
    # a rank that goes while gloo's threads still run is aborted by them
    dist.barrier()
    dist.destroy_process_group()
''')


@pytest.mark.slow
def test_every_projector_gets_the_same_gradient_on_both_ranks(tmp_path):
    script = tmp_path / 'ddp.py'
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run',
         '--nproc_per_node=2', '--master_port=29533', str(script)],
        cwd=ROOT, text=True, capture_output=True, timeout=280,
        env={**os.environ, 'OMP_NUM_THREADS': '1',
             'PYTHONPATH': str(ROOT)})
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('done') == 2
