"""Ten steps on the device against ten on the CPU: alone, under AMP, and under DDP."""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any

import torch
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper

import kd_ext  # noqa: F401
from benchmarks.gpu_check.models import DETECTORS, distillation, images, optimizer
from benchmarks.gpu_check.parts import Row, Setting, part
from kd_ext.engine.amp import CPUAmpOptimWrapper

STEPS, FEW = 10, 2
# largest relative difference of a step's total loss, over all steps. A box that changes its side of a threshold moves
# the loss by more than rounding does
EXACT, HALF = 1e-3, 5e-2


def run(model: Any, name: str, wrapper: Any, steps: int, part: int | None = None) -> list[float]:
    """Total loss of each training step, by MMEngine's own ``train_step``."""
    totals = []
    for step in range(steps):
        torch.manual_seed(step)  # samplers draw on the CPU
        totals.append(model.train_step(images(name, part), wrapper)['loss'].detach())
    return [float(one) for one in totals]


def amp(device: str, dtype: torch.dtype) -> tuple[type, dict[str, Any]]:
    """The AMP wrapper of a device and its arguments."""
    if device == 'cpu':
        return CPUAmpOptimWrapper, {}
    return AmpOptimWrapper, dict(dtype=str(dtype)[6:], loss_scale='dynamic')


def worst(found: list[float], exact: list[float]) -> float:
    """Largest relative difference."""
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(found, exact))


def same_weights(model: Any, other: Any) -> float:
    """Largest difference of trained weights, over the largest weight of their tensor."""
    pairs = zip(model.parameters(), other.parameters())
    return max(
        float((a.detach().cpu() - b.detach().cpu()).abs().max() / b.detach().abs().max().cpu().clamp(min=1e-6))
        for a, b in pairs
    )


@part
def steps(setting: Setting) -> list[Row]:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows, count = [], FEW if setting.small else STEPS
    for name in DETECTORS:
        reference = distillation(name, 'cpu')
        exact = run(reference, name, optimizer(reference, OptimWrapper), count)
        rows.append(Row(f'{name}: loss after {count} steps', exact[-1], note=f'from {exact[0]:.4g}'))
        model = distillation(name, setting.device)
        found = run(model, name, optimizer(model, OptimWrapper), count)
        rows.append(Row(f'{name}: fp32 against the CPU', worst(found, exact), EXACT))
        rows.append(Row(f'{name}: weights after {count} steps', same_weights(model, reference), 10 * EXACT))
        for dtype in setting.halves:
            model = distillation(name, setting.device)
            wrapper, given = amp(setting.device, dtype)
            found = run(model, name, optimizer(model, wrapper, **given), count)
            rows.append(Row(f'{name}: AMP {str(dtype)[6:]} against the CPU', worst(found, exact), HALF))
    return rows


@part
def ddp(setting: Setting) -> list[Row]:
    rows = []
    # NCCL takes one process a GPU; gloo lets two share one
    kinds = [('nccl', 1), ('gloo', 2)] if setting.device == 'cuda' else [('gloo', 1), ('gloo', 2)]
    count = FEW if setting.small else STEPS
    for backend, processes in kinds:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_process, (backend, processes, setting.device, count, folder), nprocs=processes)
            ranks = [torch.load(os.path.join(folder, f'{rank}.pth')) for rank in range(processes)]
        for name in DETECTORS:
            found = [rank[name] for rank in ranks]
            label = f'{name}: DDP, {backend}, {processes} process' + 'es' * (processes > 1)
            if processes == 1:
                model = distillation(name, setting.device)
                exact = run(model, name, optimizer(model, OptimWrapper), count)
                rows.append(Row(f'{label} against none', worst(found[0]['losses'], exact), EXACT))
            else:
                pairs = zip(*(one['weights'] for one in found))
                apart = max(float((one - other).abs().max()) for one, other in pairs)
                rows.append(Row(f'{label}: difference of their weights', apart, 0.0))
            finite = all(math.isfinite(loss) for one in found for loss in one['losses'])
            rows.append(Row(f'{label}: all losses finite', str(finite), 'True'))
    return rows


def _process(rank: int, backend: str, processes: int, device: str, count: int, folder: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    store = torch.distributed.FileStore(os.path.join(folder, 'store'), processes)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=processes)
    found = {}
    for name in DETECTORS:
        model = distillation(name, device)
        wrapped = MMDistributedDataParallel(model, device_ids=[0] if device == 'cuda' else None)
        losses = run(wrapped, name, optimizer(model, OptimWrapper), count, None if processes == 1 else rank)
        found[name] = dict(losses=losses, weights=[one.detach().cpu() for one in model.parameters()])
    torch.save(found, os.path.join(folder, f'{rank}.pth'))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@part
def determinism(setting: Setting) -> list[Row]:
    """Twice the same steps: as they are, and with the algorithms that torch knows to be deterministic."""
    rows = []
    for name in DETECTORS:
        for strict in (False, True):
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
            torch.use_deterministic_algorithms(strict, warn_only=True)
            models = [distillation(name, setting.device) for _ in range(2)]
            for model in models:
                run(model, name, optimizer(model, OptimWrapper), FEW)
            apart = same_weights(*models)
            label = 'with deterministic algorithms' if strict else 'as it is'
            rows.append(Row(f'{name}: two runs apart, {label}', apart, EXACT, 'the same bits' if apart == 0 else ''))
    torch.use_deterministic_algorithms(False)
    return rows
