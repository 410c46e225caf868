"""Time and memory: each loss beside ``F.mse_loss``, whole steps beside their parts and mmrazor's distiller."""

from __future__ import annotations

import argparse
import gc

import torch
from rich.console import Console

from benchmarks import losses as loss_times
from benchmarks.gpu_check.models import distillation
from benchmarks.gpu_check.parts import Row, Setting, part
from benchmarks.loss_cases import CASES
from benchmarks.step import measure
from benchmarks.step_model import load_model
from kd_ext.cli.config import load_config

CONFIGS = dict(fcos='kd_ext::rcka_fcos_r101_r50_coco.py', faster_rcnn='kd_ext::nd-rcka_faster-rcnn_r101_r50_coco.py')
RCKA, STEP = 4.0, 1.05  # of F.mse_loss, and of student plus needed teacher


@part
def loss_cost(setting: Setting) -> list[Row]:
    args = argparse.Namespace(fast_only=True, shrink=128 if setting.small else 1, repeats=2 if setting.small else 9)
    rows = []
    for name in CASES:
        if name == 'lipschitz_hard':
            continue
        found = loss_times.run_case(name, args, Console(quiet=True))['candidates']
        for key, one in found.items():
            limit = RCKA if (name, key) == ('rcka', 'intra') and setting.device == 'cuda' else None
            memory = one['memory_mib']
            note = f'{one["median_ms"]:.3f} ms' + (f', {memory:.0f} MiB' if memory is not None else '')
            rows.append(Row(f'{name}: {key}, times mse', one['ratio'], limit, note))
    return rows


@part
def step_cost_2(setting: Setting) -> list[Row]:
    return _steps(setting, 2)


@part
def step_cost_8(setting: Setting) -> list[Row]:
    return _steps(setting, 8)


def _steps(setting: Setting, count: int) -> list[Row]:
    rows = []
    for name in ('FCOS',) if setting.small else CONFIGS:
        args = argparse.Namespace(
            size=(64, 96) if setting.small else (800, 1333),
            batch=count,
            repeats=1 if setting.small else 5,
            razor=True,
            clock='wall',
        )
        model = distillation(name, setting.device) if setting.small else load_model(load_config(CONFIGS[name], None))
        found = measure(name, args, Console(quiet=True), model)
        for key, one in found['candidates'].items():
            ratio, memory = one['to_ideal'], one['memory_mib']
            limit = STEP if key == 'distilled' and setting.device == 'cuda' else None
            note = f'{one["median_ms"]:.1f} ms' + (f', {memory:.0f} MiB' if memory is not None else '')
            if ratio is None:
                rows.append(Row(f'{name}, batch {count}: {key}, times student', one['ratio'], None, note))
            else:
                rows.append(Row(f'{name}, batch {count}: {key}, times student + teacher', ratio['ratio'], limit, note))
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return rows
