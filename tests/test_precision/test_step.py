"""A whole distillation step in mixed precision beside one in fp32."""

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from kd_ext.engine.amp import CPUAmpOptimWrapper
from kd_ext.recipes import distill_entries
from tests.helpers import joined_batches as joined
from tests.helpers import tiny_detectors as tiny

METHODS = 'rcka', 'reviewkd', 'pkd', 'cwd', 'lipschitz', 'kd++', 'nckd'
ENTRIES = {
    **distill_entries(METHODS),
    'ofd': dict(
        type='mmrazor.OFDLoss',
        at='pre_relu',
        mul_factor=1e3,
        teacher_connector=dict(type='kd_ext.RunningMarginConnector'),
    ),
    'connected': dict(type='kd_ext.LipschitzLoss', **joined.CONNECTED),
}
# relative errors of the terms, at most twice those measured on four batches:
# they are the network's own in bf16. The logits of untrained networks and
# their class means hardly differ, so there rounding is a large part
MAPS = dict(rcka=1e-2, reviewkd=5e-3, pkd=1e-3, cwd=6e-3, lipschitz=6e-3, connected=1.5e-2, ofd=1e-2)
TERMS = {
    'FCOS': dict(MAPS, nd=2.5e-3, kd=2.5e-2, nckd_nc1=2.5e-2, nckd_nc2=0.2),
    # other proposals are sampled, as their scores are rounded too
    'Faster R-CNN': dict(MAPS, nd=4e-2),
}
NONE = 'no GPU: mixed precision of CUDA is tested where there is one'
CUDA = [
    pytest.param('cuda', dtype, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason=NONE))
    for dtype in ('float16', 'bfloat16')
]


def wrapper(model, device, dtype):
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    if dtype is None:
        return OptimWrapper(optimizer)
    if device == 'cpu':
        return CPUAmpOptimWrapper(optimizer)
    return AmpOptimWrapper(dtype=dtype, optimizer=optimizer, loss_scale='dynamic')


def steps(detector, device, dtype, count=2):
    """Losses of some training steps, and the model after them."""
    model = tiny.distill(*joined.detectors(detector), **ENTRIES).train()
    model.to(device)
    wrapped, losses = wrapper(model, device, dtype), []
    for seed in range(2, 2 + count):  # both classes of these have boxes
        torch.manual_seed(0)
        data = model.data_preprocessor(tiny.batch(seed=seed), True)
        with wrapped.optim_context(model):
            found = model(**data, mode='loss')
        wrapped.update_params(model.parse_losses(found)[0])
        losses.append({key: float(value.detach()) for key, value in found.items() if key.startswith('distill.')})
    return losses, model


@pytest.mark.parametrize('device, dtype', [('cpu', 'bfloat16'), *CUDA])
@pytest.mark.parametrize('detector', TERMS)
def test_near_fp32(detector, device, dtype):
    exact, model = steps(detector, device, None)
    low, half = steps(detector, device, dtype)
    for name, rtol in TERMS[detector].items():
        key = f'distill.loss_{name}'
        assert exact[0][key] > 0
        assert low[0][key] == pytest.approx(exact[0][key], rel=rtol), name
    assert all(torch.isfinite(torch.tensor(value)) for step in low for value in step.values())
    # what is trained and what is kept are fp32, and finite
    for name, value in half.distiller.state_dict().items():
        assert value.isfinite().all(), name
        assert value.dtype == model.distiller.state_dict()[name].dtype
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in half.parameters())


@pytest.mark.parametrize('scale', [1.0, 65536.0])
def test_gradients_under_a_loss_scale(scale):
    model = tiny.distill(*joined.detectors('FCOS'), **ENTRIES).train()
    wrapped = wrapper(model, 'cpu', 'bfloat16')
    data = model.data_preprocessor(tiny.batch(seed=2), True)
    with wrapped.optim_context(model):
        losses = model(**data, mode='loss')
    (scale * model.parse_losses(losses)[0]).backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert p.grad.isfinite().all(), name
    assert all(p.grad.any() for p in model.distiller.parameters())
