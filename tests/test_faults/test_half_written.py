"""A checkpoint is whole or not there; what is damaged is not resumed from."""

import os
import subprocess

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend

from kd_ext.engine import policies, whole_checkpoints
from kd_ext.engine.resume import choose_checkpoint
from kd_ext.engine.whole_files import check_place, replacing, write_text
from kd_ext.errors import is_ours
from tests.helpers.killable_trainings import KILLED, apart, go_on, go_on_dying, go_on_limited
from tests.helpers.short_trainings import command, config, save_teacher


def checkpoint(folder, iters, name=None, seed=5, **changes):
    path = folder / (name or f'epoch_{iters}.pth')
    torch.save(
        {
            **dict(
                meta=dict(epoch=iters, iter=iters, seed=seed),
                state_dict=dict(a=torch.full((300,), float(iters))),
                message_hub={},
                optimizer={},
            ),
            **changes,
        },
        path,
    )
    return path


def last(folder, path):
    (folder / 'last_checkpoint').write_text(str(path))


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    if how == 'gone':
        path.unlink()
        return
    path.write_bytes(
        {
            'empty': b'',
            'cut': content[:middle],
            'text': b'epoch 2' * 50,
            # of the same length, and readable to torch but for one tensor
            'flipped': content.replace(
                torch.full((9,), 2.0).numpy().tobytes(), torch.full((9,), 3.0).numpy().tobytes()
            ),
            'other': torch_bytes(path.parent),
        }[how]
    )


def torch_bytes(folder):
    torch.save(dict(a=torch.zeros(1)), folder / 'plain')
    return (folder / 'plain').read_bytes()


FAULTS = dict(
    gone='no such file',
    empty='an empty file',
    cut='cut short',
    text='no checkpoint',
    flipped='damaged at',
    other='it holds no meta',
)


def chosen(folder, load_from=None, **changes):
    cfg = Config(dict(work_dir=str(folder), resume=True, load_from=load_from, **changes))
    choose_checkpoint(cfg)
    return cfg


@pytest.mark.parametrize('how', FAULTS)
class TestDamagedLast:
    @pytest.fixture
    def folder(self, tmp_path, how):
        checkpoint(tmp_path, 1)
        broken = checkpoint(tmp_path, 2)
        last(tmp_path, broken)
        damage(broken, how)
        return tmp_path

    def test_the_one_before_is_taken(self, folder, how, capsys):
        assert chosen(folder).load_from == str(folder / 'epoch_1.pth')
        text = capsys.readouterr().err
        assert 'epoch_2.pth' in text and FAULTS[how] in text
        assert f'Going on from {folder}/epoch_1.pth.' in text

    def test_named_by_the_user(self, folder, how):
        if how == 'gone':
            return  # check_checkpoint says so
        with pytest.raises(ValueError, match=FAULTS[how]) as info:
            chosen(folder, str(folder / 'epoch_2.pth'))
        assert is_ours(info.value)
        assert f'is whole: {folder}/epoch_1.pth' in str(info.value)

    def test_no_other(self, folder, how):
        (folder / 'epoch_1.pth').unlink()
        with pytest.raises(ValueError, match='and no other.*Start anew'):
            chosen(folder)


class TestChoice:
    def test_the_last_is_left_to_mmengine(self, tmp_path, capsys):
        checkpoint(tmp_path, 2)
        last(tmp_path, checkpoint(tmp_path, 1))
        assert chosen(tmp_path).load_from is None
        assert not capsys.readouterr().err

    def test_nothing_there(self, tmp_path):
        cfg = chosen(tmp_path / 'none')
        assert cfg.load_from is None and 'randomness' not in cfg

    @pytest.mark.parametrize('content', [None, '', '\n'])
    def test_name_not_written(self, tmp_path, content):
        if content is not None:
            last(tmp_path, content)
        for iters in (9, 10, 2):
            checkpoint(tmp_path, iters)
        assert chosen(tmp_path).load_from == str(tmp_path / 'epoch_10.pth')

    def test_best_and_half_files_do_not_count(self, tmp_path):
        checkpoint(tmp_path, 1)
        for name in ('best_mAP_epoch_3.pth', 'epoch_4.pth.part', 'mine.pth'):
            checkpoint(tmp_path, 4, name)
        damage(checkpoint(tmp_path, 3), 'cut')
        assert chosen(tmp_path).load_from == str(tmp_path / 'epoch_1.pth')

    def test_work_dir_that_moved(self, tmp_path):
        checkpoint(tmp_path, 1)
        last(tmp_path, '/elsewhere/epoch_1.pth')
        assert chosen(tmp_path).load_from == str(tmp_path / 'epoch_1.pth')

    def test_same_iteration(self, tmp_path):
        # an interrupted epoch goes on from its start with later weights
        os.utime(checkpoint(tmp_path, 4), (1, 1))
        checkpoint(tmp_path, 4, 'interrupted.pth')
        assert chosen(tmp_path).load_from.endswith('interrupted.pth')

    def test_seed_is_kept(self, tmp_path):
        last(tmp_path, checkpoint(tmp_path, 1, seed=7))
        assert chosen(tmp_path).randomness.seed == 7
        given = dict(seed=3, deterministic=True)
        assert chosen(tmp_path, randomness=given).randomness == given

    def test_what_would_run_code_is_no_damage(self, tmp_path):
        import pickle

        last(tmp_path, checkpoint(tmp_path, 2, extra=os.system))
        with pytest.raises(pickle.UnpicklingError):
            chosen(tmp_path)


@pytest.fixture
def safe():
    policies.apply()


@pytest.mark.usefixtures('safe')
class TestWriting:
    def test_a_write_that_fails_changes_nothing(self, tmp_path, monkeypatch):
        path = tmp_path / 'epoch_1.pth'
        LocalBackend().put(b'good', path)
        monkeypatch.setattr(os, 'fsync', full_disk)
        with pytest.raises(OSError, match='No space left') as info:
            LocalBackend().put(b'better', path)
        assert is_ours(info.value) and str(path) in str(info.value)
        assert path.read_bytes() == b'good'
        assert os.listdir(tmp_path) == ['epoch_1.pth']

    def test_through_a_link_and_into_new_folders(self, tmp_path):
        path = tmp_path / 'a/b/epoch_1.pth'
        LocalBackend().put(b'one', path)
        (tmp_path / 'link').symlink_to(path)
        LocalBackend().put(b'two', tmp_path / 'link')
        assert path.read_bytes() == b'two'
        assert (tmp_path / 'link').is_symlink()

    def test_devices(self):
        LocalBackend().put(b'x', '/dev/null')

    def test_installed_once(self):
        put = LocalBackend.put
        whole_checkpoints.install()
        assert LocalBackend.put is put


class TestPlaces:
    @pytest.fixture
    def device(self, tmp_path):
        path = tmp_path / 'device'
        os.mkfifo(path)
        return path

    @pytest.mark.parametrize('kind', ['device', 'link', 'folder'])
    def test_only_regular_files_are_replaced(self, tmp_path, device, kind):
        (tmp_path / 'link').symlink_to(device)
        (tmp_path / 'folder').mkdir()
        before = {path.name: path.lstat() for path in tmp_path.iterdir()}
        with pytest.raises(ValueError, match=f'regular file.*{kind}.*choose another') as info:
            write_text(tmp_path / kind, 'x')
        assert is_ours(info.value)
        assert {path.name: path.lstat() for path in tmp_path.iterdir()} == before

    def test_the_null_device(self):
        with pytest.raises(ValueError, match="--out to be.*'/dev/null'"):
            check_place('/dev/null', '--out')
        assert os.stat('/dev/null').st_rdev

    def test_what_fails_leaves_the_old_file(self, tmp_path):
        path = tmp_path / 'a.json'
        write_text(path, 'old')
        with pytest.raises(ZeroDivisionError), replacing(path) as part:
            open(part, 'w').close()
            raise ZeroDivisionError
        assert path.read_text() == 'old' and os.listdir(tmp_path) == ['a.json']


def full_disk(*args):
    raise OSError(28, 'No space left on device')


def write(folder, shapes, name, **changes):
    cfg = config(
        shapes, folder / name, save_teacher(folder), **{'default_hooks.checkpoint.max_keep_ckpts': 1, **changes}
    )
    path = folder / f'{name}.py'
    cfg.dump(path)
    return path, folder / name


EPOCH_1 = {'train_cfg.max_epochs': 1}


def iterations(work_dir):
    """Of the one checkpoint that is there, which has to be whole."""
    (file,) = work_dir.glob('epoch_*.pth')
    return torch.load(file)['meta']['iter']


@pytest.mark.slow
def test_killed_while_saving(shapes, tmp_path):
    path, work_dir = write(tmp_path, shapes, 'killed')
    assert apart(go_on_dying, path, 'epoch_2')[0] == KILLED
    assert iterations(work_dir) == 2
    assert (work_dir / 'epoch_2.pth.part').stat().st_size
    assert apart(go_on, path)[0] == 0
    assert iterations(work_dir) == 4
    assert not list(work_dir.glob('*.part'))


def test_no_file_can_grow(shapes, tmp_path):
    path, work_dir = write(tmp_path, shapes, 'limited', **EPOCH_1)
    assert apart(go_on, path)[0] == 0
    size = (work_dir / 'epoch_1.pth').stat().st_size
    path, _ = write(tmp_path, shapes, 'limited')
    status, text = apart(go_on_limited, path, size // 2)
    assert status == 1 and 'Traceback' not in text
    assert "epoch_2.pth' to be written, but got File too large" in text
    assert iterations(work_dir) == 2
    assert not list(work_dir.glob('*.part'))
    assert apart(go_on, path)[0] == 0
    assert iterations(work_dir) == 4


@pytest.mark.slow
def test_full_disk_and_damage_at_the_command_line(shapes, tmp_path):
    path, work_dir = write(tmp_path, shapes, 'full', **EPOCH_1)
    work_dir.mkdir()
    disk = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'none', work_dir], capture_output=True, text=True)
    if disk.returncode:
        pytest.skip(f'no small disk can be mounted here: {disk.stderr}')
    try:
        assert apart(go_on, path)[0] == 0
        free = os.statvfs(work_dir).f_bavail * os.statvfs(work_dir).f_bsize
        size = (work_dir / 'epoch_1.pth').stat().st_size
        (work_dir / 'filler').write_bytes(bytes(free - size // 2))
        done = command('tools/train.py', path, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
        assert done.returncode == 1
        assert "epoch_2.pth' to be written, but got No space left" in (done.stdout)
        assert 'Make room' in done.stdout and 'Traceback' not in done.stdout
        assert iterations(work_dir) == 2
        # and half a file of an older program, on the same disk
        (work_dir / 'filler').unlink()
        content = (work_dir / 'epoch_1.pth').read_bytes()
        (work_dir / 'epoch_2.pth').write_bytes(content[: size // 3])
        last(work_dir, work_dir / 'epoch_2.pth')
        done = command('tools/train.py', path, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
        assert done.returncode == 0, done.stdout[-3000:]
        assert f"'{work_dir}/epoch_2.pth' (cut short" in done.stdout
        assert f'Going on from {work_dir}/epoch_1.pth.' in done.stdout
        assert torch.load(work_dir / 'epoch_2.pth')['meta']['iter'] == 4
    finally:
        subprocess.run(['umount', work_dir], check=True)


def test_kept_until_the_next_best(tmp_path, safe):
    """The files that max_keep_ckpts and save_best drop go last."""
    from types import SimpleNamespace

    from mmengine.hooks import CheckpointHook
    from mmengine.logging import MessageHub, MMLogger

    def save(folder, filename, *args, **kwargs):
        if fails:
            full_disk()
        (tmp_path / filename).write_text(filename)

    fails = False
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        epoch=0,
        iter=4,
        save_checkpoint=save,
        message_hub=MessageHub('saving'),
        logger=MMLogger('saving'),
    )
    hook = CheckpointHook(interval=1, max_keep_ckpts=1, save_best='mAP', rule='greater')
    hook.before_train(runner)

    def files():
        return {path.name for path in tmp_path.glob('*.pth')}

    for epoch in (1, 2):
        hook._save_checkpoint(runner)
        runner.epoch = epoch
        hook._save_best_checkpoint(runner, dict(mAP=epoch))
        assert files() == {f'epoch_{epoch}.pth', f'best_mAP_epoch_{epoch}.pth'}
    fails, before = True, files()
    with pytest.raises(OSError, match='No space left'):
        hook._save_checkpoint(runner)
    with pytest.raises(OSError, match='No space left'):
        hook._save_best_checkpoint(runner, dict(mAP=9))
    assert files() == before
    # the same name again: the new file stays
    fails = False
    hook.best_ckpt_path = str(tmp_path / 'best_mAP_epoch_2.pth')
    hook._save_best_checkpoint(runner, dict(mAP=10))
    assert files() == before
