"""Runs the parts of the check, each in a process of its own, and keeps what each found.

    python -m benchmarks.gpu_check --json FILE [--parts NAME ...] [--seconds 480]

A part that the file holds already is not run again, so a second call goes on where the first one ended. Exit status: 0
if all is well, 1 if something is outside its limit or a part failed, 2 if the machine lacks something.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.refusal import Refusal, refusing

NAMES = ['losses', 'waits', 'steps', 'loss_cost', 'step_cost_2', 'step_cost_8', 'determinism', 'ddp']
DEVICES = ('cuda', 'cpu')
LEAST_GIB = 8
FIRST_SECONDS = 20  # no part is started with less


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, required=True, help='file to write, and to go on from')
    parser.add_argument('--parts', nargs='+', choices=NAMES, default=NAMES, metavar='NAME', help=', '.join(NAMES))
    parser.add_argument('--seconds', type=float, default=480, help='for all parts (default: %(default)s)')
    parser.add_argument('--one', choices=NAMES, help=argparse.SUPPRESS)  # a part, in the process that runs it
    return parser.parse_args(argv)


def device_name() -> str:
    """``KD_EXT_DEVICE``, checked."""
    device = os.environ.get('KD_EXT_DEVICE', 'cuda')
    if device not in DEVICES:
        raise Refusal(f'Expected KD_EXT_DEVICE to be cuda or cpu, but got {device!r}.')
    import torch

    if device == 'cpu':
        return device
    small = 'KD_EXT_DEVICE=cpu runs the check at small sizes without one.'
    if torch.version.cuda is None:
        raise Refusal(f'Expected torch to be built for CUDA, but got torch {torch.__version__}. {small}')
    if not torch.cuda.is_available():
        raise Refusal(f'Expected a GPU, but got none that torch {torch.__version__} sees. {small}')
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < LEAST_GIB:
        name = torch.cuda.get_device_name()
        raise Refusal(f'Expected at least {LEAST_GIB} GiB of free GPU memory, but got {free:.1f} GiB on {name}.')
    return device


def run_one(name: str, device: str, path: Path) -> None:
    """Runs a part in this process and writes its rows."""
    import torch

    import kd_ext  # noqa: F401
    from benchmarks.gpu_check import cost, losses, steps, waits  # noqa: F401
    from benchmarks.gpu_check.parts import PARTS, Setting

    try:
        rows = PARTS[name](Setting(device, small=device == 'cpu'))
    except torch.cuda.OutOfMemoryError as error:
        path.write_text(json.dumps(dict(status='too little memory', error=str(error).partition('. ')[0])))
        return
    found = [dict(row._asdict(), good=row.good) for row in rows]
    path.write_text(json.dumps(dict(status='done', rows=found)))


def run_part(name: str, seconds: float) -> dict[str, Any]:
    """Runs a part in a process of its own: an error on a GPU ends all that its process has there."""
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / 'part.json', time.monotonic()
        command = [sys.executable, '-W', 'ignore', '-m', 'benchmarks.gpu_check', '--json', str(path), '--one', name]
        log = Path(folder) / 'log'
        with log.open('w') as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
            try:
                process.wait(seconds)
                found = dict(status='failed')
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes of ddp
                process.wait()
                found = dict(status='out of time')
        if path.exists():
            found = json.loads(path.read_text())
        if found['status'] == 'failed':
            found['error'] = '\n'.join(log.read_text().splitlines()[-15:])
        return dict(found, seconds=round(time.monotonic() - start, 1))


def main() -> int:
    args = parse_args()
    device = device_name()
    if args.one:
        run_one(args.one, device, args.json)
        return 0
    from benchmarks.gpu_check.report import begin, judged, show, write

    deadline = time.monotonic() + args.seconds
    report = begin(args.json, device)
    for name in args.parts:
        if report['parts'].get(name, {}).get('status') == 'done':
            continue
        left = deadline - time.monotonic()
        report['parts'][name] = run_part(name, left) if left > FIRST_SECONDS else dict(status='out of time')
        write(args.json, report)
    show(report, args.parts)
    print(f'Wrote {args.json}')
    short = [name for name in args.parts if report['parts'][name]['status'] == 'too little memory']
    if short:
        error = report['parts'][short[0]]['error']
        raise Refusal(f'Expected memory for {", ".join(short)}, but got: {error}. All else was kept.')
    return judged(report, args.parts)


if __name__ == '__main__':
    sys.exit(refusing(main))
