"""Checks a distillation before it is trained.

    kd_ext check CONFIG                       (or: python tools/check.py CONFIG)
    kd_ext check CONFIG --teacher CONFIG --teacher-ckpt WEIGHTS \\
        --distill rcka nd

Compares the class lists; scores the teacher on a few labelled images against
the same network untrained and under other normalisations; shows which layers
are matched, each term's value, share and gradient in one step, and the cost
of a step. The exit status is 1 if training would be pointless.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Sequence

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kd_ext.build.configs import distills, type_name
from kd_ext.build.probe import is_segmentor
from kd_ext.cli.arguments import add_config_options, add_distill_options, add_work_dir, parse, positive, tool_parser
from kd_ext.cli.config import training_config
from kd_ext.cli.data_check import check_data
from kd_ext.cli.errors import console, rank, tool
from kd_ext.errors import value_error
from kd_ext.preflight import Finding, Preflight
from kd_ext.preflight.step_check import build
from kd_ext.preflight.timing import Stopwatch


@tool
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the preflight and exits with status 1 if a finding is fatal; refuses a config that does not distill."""
    args = parse_args(argv, prog)
    cfg = training_config(args)
    if not distills(cfg.model):
        raise value_error(
            'config',
            'one that distills',
            f'a plain {type_name(cfg.model)}',
            'Add --teacher CONFIG --teacher-ckpt WEIGHTS --distill METHOD.',
        )
    check_data(cfg, ('train', 'val'))
    quiet()  # its own report says what matters
    leave_busy_cores()
    watch = Stopwatch()
    with watch.part('building the models'):
        model = build(cfg).to(get_device())
    sys.exit(1 if show(Preflight(cfg, model, args.images, args.size, watch, console()).run()) else 0)


def parse_args(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = tool_parser(__doc__, prog)
    add_config_options(parser)
    add_work_dir(parser)
    add_distill_options(parser)
    parser.add_argument(
        '--images', type=positive, default=6, metavar='N', help='images to look at (default: %(default)s)'
    )
    parser.add_argument(
        '--size', type=positive, default=320, metavar='PIXELS', help='their longer side (default: %(default)s)'
    )
    return parse(parser, argv)


def look(runner: Runner) -> None:
    """Runs the short checks before a training and prints the findings as warnings.

    Only rank 0 does. Plain detectors, resumed trainings and segmentors of mmseg are skipped.
    """
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    if not hasattr(model, 'distiller') or runner._resume or rank() != 0 or is_segmentor(model.student):
        return
    watch = Stopwatch()
    findings = Preflight(runner.cfg, model, images=2).short()
    for finding in sorted(findings, key=lambda one: not one.fatal):
        runner.logger.warning(f'{"stop" if finding.fatal else "look"}: {finding.text}')
    verdict = 'nothing found' if not findings else f'{_verdict(findings)} kd_ext check says more'
    runner.logger.info(f'short check, {watch.total:.1f} s: {verdict}')


def leave_busy_cores() -> None:
    """Limits torch's threads to the idle cores, but to at least one thread.

    Threads that wait for one another on a busy core take several times as long as a single thread.
    """
    free = (os.cpu_count() or 1) - round(os.getloadavg()[0])
    torch.set_num_threads(max(1, min(torch.get_num_threads(), free)))


def quiet() -> None:
    """Keeps only warnings and errors in MMEngine's log."""
    logger = MMLogger.get_current_instance()
    for one in (logger, *logger.handlers):
        one.setLevel(logging.WARNING)


def show(findings: Sequence[Finding]) -> bool:
    """Prints the findings, fatal ones first; returns whether there is a fatal one."""
    out = console()
    for finding in sorted(findings, key=lambda one: not one.fatal):
        mark = '[bold red]stop[/]' if finding.fatal else '[yellow]look[/]'
        out.print(mark, end='  ')
        out.print(finding.text, highlight=False, markup=False)
    fatal = any(finding.fatal for finding in findings)
    out.print(_verdict(findings), style='bold red' if fatal else 'green')
    return fatal


def _verdict(findings: Sequence[Finding]) -> str:
    fatal = any(finding.fatal for finding in findings)
    return 'Training this would be pointless.' if fatal else 'Ready to train.'
