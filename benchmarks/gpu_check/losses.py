"""Every loss on the device against the CPU in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu_check.parts import Row, Setting, part, relative
from benchmarks.growth_model import ENTRIES, Usual, prepare

# value and gradient. Losses compute in fp32 whatever they get; a gradient is rounded to what it belongs to, 2^-11 of
# it in fp16 and 2^-8 in bf16, and the power iteration of Lipschitz ends 1e-4 from its vectors
TOLERANCES = {torch.float32: (1e-4, 1e-3), torch.float16: (1e-4, 2e-3), torch.bfloat16: (1e-4, 8e-3)}
# feature_cka compares images: of two it is 0 whatever they are
SMALL = Usual(pixels=(96, 128), batch=3, regions=64, classes=8, width=8, embedding=32)
LARGE = Usual(pixels=(320, 544), batch=3, regions=512, classes=80, width=64)


@part
def losses(setting: Setting) -> list[Row]:
    given = SMALL if setting.small else LARGE
    # no tf32: its products are exact to 1e-3 only
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return [row for name in ENTRIES for dtype in TOLERANCES for row in compare(name, given, setting.device, dtype)]


def compare(name: str, given: Usual, device: str, dtype: torch.dtype) -> list[Row]:
    """A loss on ``device`` in ``dtype`` against float64 on the CPU, on the same rounded numbers."""
    exact, slopes, _ = _run(name, given, 'cpu', dtype, torch.float64)
    largest = max(float(slope.abs().max()) for slope in slopes)
    # what a gradient scaler does: gradients near 1, which fp16 holds
    scale = 2.0 ** round(-torch.tensor(largest).log2().item()) if 0 < largest < float('inf') else 1.0
    value, found, seen = _run(name, given, device, dtype, dtype, scale)
    label = f'{name}, {str(dtype)[6:]}'
    limit, slope_limit = TOLERANCES[dtype]
    joined, wanted = (torch.cat([slope.double().cpu().flatten() for slope in side]) for side in (found, slopes))
    return [
        Row(f'{label}, value', relative(value, exact), limit),
        Row(f'{label}, gradient', relative(joined / scale, wanted), slope_limit),
        Row(f'{label}, device of the gradient', ' '.join(sorted(seen)), torch.device(device).type),
    ]


def _run(
    name: str, given: Usual, device: str, rounded: torch.dtype, dtype: torch.dtype, scale: float = 1.0
) -> tuple[Tensor, list[Tensor], set[str]]:
    """Value, gradients and their devices, of numbers that were rounded to ``rounded`` before ``dtype``."""
    torch.manual_seed(0)
    leaves, teacher, forward = prepare(name, given, device, dtype)
    with torch.no_grad():
        for one in (*leaves, *teacher):
            one.copy_(one.to(rounded))
    value = forward()
    (value * scale).backward()
    grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return value, grads, {grad.device.type for grad in grads}
