"""Trainings of the quickstart, each finished once and then reused."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config

from kd_ext.engine.whole_files import write_text

ROOT = Path(__file__).resolve().parents[1]
# a large allocation then reuses pages that glibc holds instead of faulting in new ones at every iteration: about a
# quarter less time for small detectors on a CPU
FAST_MALLOC = dict(
    MALLOC_MMAP_THRESHOLD_='4294967296', MALLOC_TRIM_THRESHOLD_='8589934592', MALLOC_TOP_PAD_='268435456'
)


class Run:
    """One training in its own folder and process.

    Args:
        name (str): Shown to the user.
        config (str): File name in ``configs/``.
        folder (Path): Its work dir.
        options (dict[str, str]): ``--cfg-options`` for ``tools/train.py``.
    """

    def __init__(self, name, config, folder, options):
        self.name, self.config = name, config
        self.folder, self.options = Path(folder), options

    @property
    def result_file(self):
        return self.folder / 'result.json'

    def command(self):
        """The command that trains this, as a user would type it."""
        options = [f'{key}={value}' for key, value in self.options.items()]
        path = ROOT / 'configs' / self.config
        if not path.is_file() or Config.fromfile(path).get('custom_hooks'):
            # the progress bar's; --cfg-options drops blanks
            title = self.name.replace(' ', '_')
            options.append(f'custom_hooks.0.title={title}')
        return ['tools/train.py', f'configs/{self.config}', '--work-dir', str(self.folder), '--cfg-options', *options]

    def result(self):
        """Trains unless that is done already, and returns its figures.

        Returns:
            dict: ``metrics``, ``seconds``, ``checkpoint``, ``parameters``, ``command``.
        """
        command = self.command()
        if self.result_file.exists():
            known = json.loads(self.result_file.read_text())
            if known['command'] == command:
                print(f'{self.name}: reusing {self.folder}', flush=True)
                return known
        self.folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        self._train(command)
        known = dict(
            name=self.name, config=self.config, command=command, seconds=time.monotonic() - start, **self._figures()
        )
        write_text(self.result_file, json.dumps(known, indent=1))
        return known

    def _train(self, command):
        log = self.folder / 'log.txt'
        env = {**FAST_MALLOC, 'PYTHONWARNINGS': 'ignore', **os.environ}
        with open(log, 'w') as stream:
            # MMEngine logs to stdout, the bar and errors are on stderr
            status = subprocess.call([sys.executable, *command], cwd=ROOT, env=env, stdout=stream)
        if status:
            raise SystemExit(f'{self.name}: training failed (exit status {status}); the log is {log}')

    def _figures(self):
        import torch

        scalars = max(self.folder.glob('*/vis_data/scalars.json'))
        lines = [json.loads(line) for line in scalars.read_text().splitlines()]
        metrics = next(line for line in reversed(lines) if any('/' in key for key in line))
        checkpoint = Path((self.folder / 'last_checkpoint').read_text())
        state = torch.load(checkpoint, map_location='cpu', weights_only=True)['state_dict']
        return dict(
            metrics={key: value for key, value in metrics.items() if '/' in key},
            checkpoint=str(checkpoint),
            parameters=sum(
                value.numel()
                for key, value in state.items()
                if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
            ),
        )
