import os
import subprocess

import pytest

from tests.helpers.data_sets import ROOT

LAUNCHERS = ('dist_train', 'dist_test', 'slurm_train', 'slurm_test')
SCRIPTS = sorted([*(ROOT / 'tools').glob('*.sh'), ROOT / '.ci/run'])


def bash(*args, **env):
    return subprocess.run(
        ['bash', *map(str, args)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, 'PYTHONPATH': '', **env},
    )


@pytest.fixture
def fake_bin(tmp_path):
    """A PATH where ``python`` and ``srun`` print their arguments."""
    for name in ('python', 'srun'):
        program = tmp_path / name
        program.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" {name} "$@" "PYTHONPATH=$PYTHONPATH"\n')
        program.chmod(0o755)
    return dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', VIRTUAL_ENV=str(tmp_path))


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_syntax(path):
    assert bash('-n', path).returncode == 0


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_stops_at_the_first_error(path):
    if path.name != 'common.sh':  # sourced by those that do
        assert 'set -euo pipefail' in path.read_text()


def test_ci_entry_is_executable():
    assert os.access(ROOT / '.ci/run', os.X_OK)


@pytest.mark.parametrize('name', LAUNCHERS)
@pytest.mark.parametrize('args', [(), ('config.py',)])
def test_usage(name, args):
    done = bash(ROOT / f'tools/{name}.sh', *args)
    assert done.returncode == 2
    assert f'Usage: bash tools/{name}.sh' in done.stderr
    assert done.stdout == ''


def test_dist_train(fake_bin):
    done = bash(
        ROOT / 'tools/dist_train.sh',
        'my config.py',
        4,
        '--cfg-options',
        'a=[1, 2]',
        NNODES='2',
        NODE_RANK='1',
        MASTER_ADDR='10.0.0.1',
        PORT='1234',
        **fake_bin,
    )
    assert done.stdout.splitlines() == [
        'python',
        '-m',
        'torch.distributed.run',
        '--nnodes=2',
        '--node_rank=1',
        '--master_addr=10.0.0.1',
        '--master_port=1234',
        '--nproc_per_node=4',
        f'{ROOT}/tools/train.py',
        'my config.py',
        '--cfg-options',
        'a=[1, 2]',
        '--launcher',
        'pytorch',
        f'PYTHONPATH={ROOT}',
    ]


def test_dist_test(fake_bin):
    done = bash(ROOT / 'tools/dist_test.sh', 'config.py', 'a b.pth', 2, **fake_bin)
    assert done.stdout.splitlines()[3:] == [
        '--nnodes=1',
        '--node_rank=0',
        '--master_addr=127.0.0.1',
        '--master_port=29500',
        '--nproc_per_node=2',
        f'{ROOT}/tools/test.py',
        'config.py',
        'a b.pth',
        '--launcher',
        'pytorch',
        f'PYTHONPATH={ROOT}',
    ]


def test_slurm_train(fake_bin):
    done = bash(
        ROOT / 'tools/slurm_train.sh',
        'part',
        'job',
        'config.py',
        'work dir',
        '--amp',
        GPUS='4',
        SRUN_ARGS='--quotatype=x -v',
        **fake_bin,
    )
    assert done.stdout.splitlines() == [
        'srun',
        '-p',
        'part',
        '--job-name=job',
        '--gres=gpu:4',
        '--ntasks=4',
        '--ntasks-per-node=4',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
        '--quotatype=x',
        '-v',
        'python',
        '-u',
        f'{ROOT}/tools/train.py',
        'config.py',
        '--work-dir=work dir',
        '--amp',
        '--launcher',
        'slurm',
        f'PYTHONPATH={ROOT}',
    ]


def test_slurm_test(fake_bin):
    done = bash(
        ROOT / 'tools/slurm_test.sh',
        'part',
        'job',
        'config.py',
        'a.pth',
        GPUS='16',
        GPUS_PER_NODE='4',
        CPUS_PER_TASK='2',
        **fake_bin,
    )
    lines = done.stdout.splitlines()
    assert lines[4:8] == ['--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4', '--cpus-per-task=2']
    assert lines[-6:-3] == [f'{ROOT}/tools/test.py', 'config.py', 'a.pth']


def test_interpreter(fake_bin, tmp_path):
    show = f'. {ROOT}/tools/common.sh; echo "$python"'
    env = {**fake_bin, 'VIRTUAL_ENV': ''}
    own = ROOT / '.venv/bin/python'
    wanted = str(own) if own.exists() else 'python'
    assert bash('-c', show, **env).stdout.strip() == wanted
    assert bash('-c', show, **fake_bin).stdout.strip() == 'python'
