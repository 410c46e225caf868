"""FSDP is refused at the first step, with the way out."""

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMFullyShardedDataParallel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.helpers import tiny_detectors as tiny

# a single process has nothing to split, and torch warns of it
pytestmark = pytest.mark.filterwarnings('ignore:FSDP is switching')


@pytest.fixture
def group():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def model():
    # FSDP refuses FCOS itself, for its scalar parameters
    return tiny.distill(tiny.faster_rcnn(), tiny.faster_rcnn(8))


def step(algorithm, wrapped):
    data = algorithm.data_preprocessor(tiny.batch(), True)
    with pytest.raises(
        RuntimeError,
        match='Expected the wrapper of '
        'DetectionDistill to be MMDistributedDataParallel, but '
        'got FSDP. Leave out the FSDPStrategy',
    ):
        wrapped(**data, mode='loss')


def test_mmengine_wrapper(group):
    algorithm = model()
    step(algorithm, MMFullyShardedDataParallel(algorithm, device_id=torch.device('cpu')))


def test_fully_shard(group):
    algorithm = model()
    step(algorithm, fully_shard(algorithm, mesh=init_device_mesh('cpu', (1,))))


def test_the_teacher_is_outside(group):
    algorithm = model()
    teacher = {id(p) for p in algorithm.teacher.parameters()}
    assert teacher.isdisjoint(map(id, algorithm.parameters()))
    wrapped = MMFullyShardedDataParallel(algorithm, device_id=torch.device('cpu'))
    held = sum(p.numel() for p in wrapped.parameters())
    assert held == sum(p.numel() for p in model().parameters())
    assert all(
        p.dim() == before.dim() for p, before in zip(algorithm.teacher.parameters(), model().teacher.parameters())
    )
