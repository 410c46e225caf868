"""Under DDP every parameter is used on each process in each step.

Also on a process without a single box, and while distillation is stopped.
DDP is not told to find unused parameters: it refuses the next step if any
was left out.
"""

import pytest

from tests.helpers.two_processes import on_two

BODY = """
from mmengine.model import MMDistributedDataParallel
from tests.helpers import joined_batches as joined
from tests.helpers import tiny_detectors as tiny
from kd_ext.recipes import distill_entries
MAPS = ['rcka', 'reviewkd', 'pkd', 'cwd']
ALL = [*MAPS, 'lipschitz', 'kd++', 'nckd']


def boxes_are_gone(step):
    return step == 2 or step == 1 and rank == 1


def check(name, methods):
    model = tiny.distill(*joined.detectors(name), **distill_entries(methods))
    wrapped = MMDistributedDataParallel(model)
    assert not wrapped.find_unused_parameters
    trained = {key: p for key, p in model.named_parameters()
               if p.requires_grad}
    for step in range(5):
        model.distillation_stopped = step == 3
        # all three classes: the angle between two centred ones never changes
        data = tiny.batch(seed=2 + step * 2 + rank)
        for sample in data['data_samples']:
            if boxes_are_gone(step):
                sample.gt_instances = sample.gt_instances[:0]
        losses = wrapped(**model.data_preprocessor(data, True), mode='loss')
        wrapped.zero_grad()
        model.parse_losses(losses)[0].backward()
        for key, p in trained.items():
            assert p.grad is not None, (name, step, key)
        total = torch.stack([p.grad.double().norm()
                             for p in trained.values()]).norm()
        both = [torch.zeros_like(total) for _ in range(2)]
        dist.all_gather(both, total)
        assert torch.equal(*both) and total > 0, (name, step)
        terms = {key: float(value.detach()) for key, value in losses.items()
                 if key.startswith('distill.loss_')}
        learning = {key: bool(p.grad.any()) for key, p
                    in model.distiller.named_parameters()}
        assert learning
        if step == 0:
            assert min(terms.values()) > 1e-6, (name, terms)
            assert all(learning.values()), (name, learning)
        if step == 3:
            assert not any(terms.values()), (name, terms)
            assert not any(learning.values()), (name, learning)


check('FCOS', ALL)
check('Faster R-CNN', ALL)
check('DETR', [*MAPS, 'nd', 'nckd'])
"""


@pytest.mark.slow
def test_every_method(tmp_path):
    on_two(tmp_path, BODY)
