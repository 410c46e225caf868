"""``sync_bn='torch'`` of the Runner's config: students and connectors.

torch's SyncBatchNorm computes on a GPU alone when there are several
processes, so the statistics themselves are not tested here.
"""

import pytest
import torch
from mmengine.model import convert_sync_batchnorm
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from tests.helpers import tiny_detectors as tiny

ENTRIES = dict(
    lipschitz=dict(type='kd_ext.LipschitzLoss', at='pre_relu', connector=dict(type='kd_ext.ConvBNConnector')),
    ofd=dict(
        type='mmrazor.OFDLoss',
        at='pre_relu',
        connector='lipschitz',
        teacher_connector=dict(type='mmrazor.OFDTeacherConnector'),
    ),
    review=dict(type='kd_ext.ReviewKDLoss', at='neck', mid_channels=8),
    nd=dict(type='kd_ext.NDLoss', at='embedding'),
)


def norms(module):
    return [type(part) for part in module.modules() if isinstance(part, _BatchNorm)]


@pytest.fixture
def pair():
    """The same model before and after the conversion."""
    before, after = (tiny.distill(teacher=tiny.fcos(8, width=24), **ENTRIES) for _ in range(2))
    return before, convert_sync_batchnorm(after, 'torch')


def test_all_but_the_teacher_is_converted(pair):
    before, after = pair
    for part in ('architecture', 'distiller'):
        kinds = norms(getattr(after, part))
        assert kinds and set(kinds) == {SyncBatchNorm}
        assert len(kinds) == len(norms(getattr(before, part)))
    assert norms(after.teacher) == norms(before.teacher)
    assert SyncBatchNorm not in norms(after.teacher)
    connectors = after.distiller.terms['lipschitz'].connectors
    assert after.distiller.terms['ofd'].connectors is connectors


def test_the_same_step_and_checkpoint(pair):
    results = []
    for model in pair:
        losses = tiny.losses(model.train())
        model.parse_losses(losses)[0].backward()
        results.append((losses, {name: p.grad for name, p in model.named_parameters()}))
    assert_close(*results)
    states = [model.state_dict() for model in pair]
    assert_close(*map(dict, states))
    tiny.build(tiny.fcos()).load_state_dict(states[1], strict=True)
    again = tiny.distill(teacher=pair[0].teacher, teacher_ckpt=None, seed=1, **ENTRIES)
    again.load_state_dict(states[1])
    assert_close(again.distiller.state_dict(), pair[0].distiller.state_dict())


def test_torch_refuses_it_on_several_cpus():
    """If this fails, torch can: compare one and two processes then."""
    import torch.distributed as dist

    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match='SyncBatchNorm expected input tensor to be on'):
            SyncBatchNorm(2)(torch.rand(4, 2))
    finally:
        dist.destroy_process_group()
