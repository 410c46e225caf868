"""tools/dist_train.sh on two nodes.

Each node is a network namespace of its own, joined by a cable, where this
machine lets one be made; and in any case two launches that meet on localhost.
"""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from tests.helpers import short_trainings as training
from tests.helpers.data_sets import ROOT
from tests.helpers.tiny_detectors import build

ADDRESSES = '10.198.51.1', '10.198.51.2'

pytestmark = pytest.mark.slow


class Cable:
    """Two network namespaces that see each other and nothing else."""

    def __init__(self):
        self.names = [f'kdext{os.getpid()}{end}' for end in 'ab']

    def __enter__(self):
        first, second = self.names
        try:
            for name in self.names:
                self._ip('netns', 'add', name)
            self._ip('link', 'add', 'wire', 'netns', first, 'type', 'veth', 'peer', 'name', 'wire', 'netns', second)
            for name, address in zip(self.names, ADDRESSES):
                self._ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', 'wire')
                for device in ('lo', 'wire'):
                    self._ip('-n', name, 'link', 'set', device, 'up')
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f'no network namespaces here: {error.stderr.strip()}')
        return self.names

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True)

    @staticmethod
    def _ip(*args):
        subprocess.run(['ip', *args], check=True, capture_output=True, text=True)


@pytest.fixture
def cable():
    if shutil.which('ip') is None:
        pytest.skip('no network namespaces here: ip is not installed')
    with Cable() as names:
        yield names


def train(shapes, folder, address, nodes):
    """One process on each node: the work dir they share.

    Args:
        nodes (list[tuple]): Command that runs another on a node, and what to
            set in its environment.
    """
    cfg = training.config(
        shapes,
        folder / 'work',
        training.save_teacher(folder),
        epochs=1,
        **{'train_dataloader.batch_size': 2, 'log_level': 'INFO', 'train_cfg.val_interval': 9},
    )
    cfg.dump(folder / 'config.py')
    runs = []
    for rank, (inside, env) in enumerate(nodes):
        with open(folder / f'log{rank}', 'w') as log:
            runs.append(
                subprocess.Popen(
                    [*inside, 'bash', 'tools/dist_train.sh', str(folder / 'config.py'), '1', '--skip-check'],
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        'OMP_NUM_THREADS': '1',
                        'NNODES': '2',
                        'NODE_RANK': str(rank),
                        'MASTER_ADDR': address,
                        'PORT': '29561',
                        'VIRTUAL_ENV': sys.prefix,
                        'PATH': f'{sys.prefix}/bin:{os.environ["PATH"]}',
                        **env,
                    },
                )
            )
    try:
        codes = [run.wait(timeout=240) for run in runs]
    finally:
        for run in runs:
            run.kill()
    logs = [(folder / f'log{rank}').read_text() for rank in (0, 1)]
    assert codes == [0, 0], '\n'.join(log[-3000:] for log in logs)
    return folder / 'work', logs


def check(work, logs):
    """One work dir, written by the first node, and a plain student."""
    runs = [path for path in work.iterdir() if path.is_dir()]
    assert len(runs) == 1, runs
    # 8 images, 2 on each node: two iterations
    assert 'Epoch(train) [1][2/2]' in logs[0]
    assert 'Epoch(train)' not in logs[1]
    state = torch.load(work / 'epoch_1.pth')['state_dict']
    student = build(training.STUDENT)
    student.load_state_dict(state, strict=True)
    assert state.keys() == student.state_dict().keys()


def test_namespaces(cable, shapes, tmp_path):
    nodes = [(('ip', 'netns', 'exec', name), dict(GLOO_SOCKET_IFNAME='wire')) for name in cable]
    check(*train(shapes, tmp_path, ADDRESSES[0], nodes))


def test_localhost(shapes, tmp_path):
    check(*train(shapes, tmp_path, '127.0.0.1', [((), {})] * 2))
