"""tools/check.py: the preflight of a config, with an exit status."""

import logging
import os
import sys

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from rich.console import Console

from kd_ext.build.configs import distills, type_name
from kd_ext.build.probe import is_segmentor
from kd_ext.cli.data_check import check_data
from kd_ext.cli.errors import rank
from kd_ext.errors import value_error
from kd_ext.preflight import Preflight
from kd_ext.preflight.step_check import build
from kd_ext.preflight.stopwatch import Stopwatch


def check(cfg, images, size):
    """Runs the preflight; the process ends with 1 where it found a reason not to train.

    Raises:
        ValueError: The config does not distill.
    """
    if not distills(cfg.model):
        raise value_error(
            'config',
            'one that distills',
            f'a plain {type_name(cfg.model)}',
            'Add --teacher CONFIG --teacher-ckpt WEIGHTS --distill METHOD.',
        )
    check_data(cfg, ('train',))
    # its own report says what matters
    quiet()
    leave_busy_cores()
    watch = Stopwatch()
    with watch.part('building the models'):
        model = build(cfg).to(get_device())
    findings = Preflight(cfg, model, images, size, watch).run()
    fatal = show(findings)
    sys.exit(1 if fatal else 0)


def look(runner):
    """The short form of :func:`check`, as warnings, before a training.

    On the first process; a plain detector, a resumed training and a segmentor of mmseg are left alone.
    """
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    if not hasattr(model, 'distiller') or runner._resume or rank() != 0 or is_segmentor(model.student):
        return
    watch = Stopwatch()
    findings = Preflight(runner.cfg, model, images=2).short()
    for finding in findings:
        runner.logger.warning(finding.text)
    runner.logger.info(
        f'short check, {watch.total:.1f} s: '
        + ('see above; tools/check.py says more' if findings else 'the teacher knows these images')
    )


def leave_busy_cores():
    """Computes on cores that nobody else uses, on at least one.

    Threads that wait for one another on a busy core take several times as long as a single one.
    """
    free = (os.cpu_count() or 1) - round(os.getloadavg()[0])
    torch.set_num_threads(max(1, min(torch.get_num_threads(), free)))


def quiet():
    """Leaves warnings and errors of MMEngine's log alone."""
    logger = MMLogger.get_current_instance()
    for one in (logger, *logger.handlers):
        one.setLevel(logging.WARNING)


def show(findings):
    """Prints findings, the fatal ones first: whether there is one."""
    console = Console()
    for finding in sorted(findings, key=lambda one: not one.fatal):
        mark = '[bold red]stop[/]' if finding.fatal else '[yellow]look[/]'
        console.print(f'{mark}  {finding.text}', highlight=False)
    fatal = any(finding.fatal for finding in findings)
    console.print('[bold red]Training this would be pointless.[/]' if fatal else '[green]Ready to train.[/]')
    return fatal
