"""tools/class_means.py, from the command line to the file."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.testing import assert_close

from kd_ext.class_means.stored import load_class_means
from kd_ext.cli import class_means
from kd_ext.teachers.class_map import ClassMap
from tests.helpers import class_means_by_hand as by_hand
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import BCCD, ROOT

TOOL = ROOT / 'tools/class_means.py'
FCOS, FASTER = tiny.fcos(num_classes=6), tiny.faster_rcnn(num_classes=6)


@pytest.fixture
def tool():
    """Calls the tool's ``main`` in this process."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    handlers = {one: signal.getsignal(one) for one in signals}

    def call(*args):
        class_means.main.__wrapped__([*map(str, args)])

    yield call
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def faster(shapes, tmp_path):
    return by_hand.files(tmp_path, shapes, FASTER)


def roi_means(model, images, indices, scale=None):
    parts = []
    for index, (path, boxes, labels) in enumerate(images):
        if index in indices:
            inputs, size, factor = by_hand.picture(path, scale)
            parts.append(by_hand.roi_regions(model, inputs, size, boxes * factor, labels, index))
    return by_hand.means(parts, model.roi_head.bbox_head.num_classes + 1)


def test_file_and_table(tool, faster, shapes, tmp_path, capsys):
    out = tmp_path / 'means.pth'
    tool(*faster, '--out', out, '--workers', 0, '--max-images', 3)
    found = load_class_means(out)
    means, counts = roi_means(by_hand.load(FASTER, faster[1]), by_hand.coco_images(shapes), (0, 2, 5))
    assert found.counts.tolist() == counts.tolist()
    assert_close(found.means, means.float(), rtol=1e-4, atol=1e-5)
    assert found.classes == ['disk', 'square', 'triangle', 'star', 'ring', 'cross']
    assert found.of_classes(6, ClassMap()) is found.means
    info = found.info
    assert info['teacher'] == 'teacher.py' and info['images'] == 3
    assert (info['checkpoint'], info['head'], info['family'], info['width'], info['dataset'], info['ann_file']) == (
        'teacher.pth',
        'Shared2FCBBoxHead',
        'RoI',
        32,
        'CocoDataset',
        'instances_train.json',
    )
    assert info['versions']['mmdet'] == '3.3.0'
    sha = subprocess.check_output(['sha256sum', faster[1]], text=True)
    assert sha.startswith(info['checkpoint_sha256'])
    assert str(tmp_path) not in json.dumps(info)
    printed = capsys.readouterr()
    assert 'triangle' in printed.out and 'background' in printed.out
    assert '3/3 images' in printed.err
    unseen = [name for name, count in zip(found.classes, found.counts) if not count]
    assert ('no region of ' + ', '.join(unseen) in printed.err) == bool(unseen)
    assert not list(tmp_path.glob('*partial*'))


def test_config_that_distills(tool, faster, shapes, tmp_path):
    cfg = training.config(shapes, tmp_path, str(faster[1]))
    cfg.model.teacher = str(faster[0])
    cfg.dump(tmp_path / 'distilling.py')
    distilling = tmp_path / 'distilling.py'
    found = []
    # the third is without weights: those that the config names
    for files in (faster, (distilling, faster[1]), (distilling,)):
        out = tmp_path / f'{len(found)}.pth'
        tool(*files, '--out', out, '--workers', 0, '--split', 'val')
        found.append(load_class_means(out))
    assert found[0].means.any() and found[0].info['images'] == 4
    for other in found[1:]:
        assert torch.equal(found[0].means, other.means) and found[0].info == other.info


def test_no_weights_to_be_had(tool, faster, tmp_path):
    with pytest.raises(ValueError, match='teacher_ckpt.*CONFIG CHECKPOINT'):
        tool(faster[0], '--out', tmp_path / 'means.pth')


def test_dense_head_by_levels(tool, shapes, tmp_path):
    files = by_hand.files(tmp_path, shapes, FCOS)
    for levels in ((), ('--levels', 0)):
        tool(
            *files,
            '--out',
            tmp_path / f'{len(levels)}.pth',
            '--workers',
            0,
            *levels,
            '--cfg-options',
            'val_dataloader.dataset.pipeline.1.scale_factor=3.',
        )
    every, first = (load_class_means(tmp_path / f'{count}.pth') for count in (0, 2))
    assert every.means.shape == (6, 16)
    assert first.counts.sum() < every.counts.sum()


def test_json_of_the_authors(tool, faster, tmp_path):
    rows = torch.randn(7, 5)
    path = tmp_path / 'authors.json'
    path.write_text(json.dumps({str(k): row.tolist() for k, row in enumerate(rows)}))
    out = tmp_path / 'means.pth'
    tool('--import-json', path, '--out', out)
    found = load_class_means(out)
    assert_close(found.means, rows)
    assert found.counts is None and found.classes is None
    assert found.info == dict(imported='authors.json', width=5)
    tool(faster[0], '--import-json', path, '--out', out)
    assert load_class_means(out).classes[-1] == 'cross'
    path.write_text(json.dumps({'0': [1.0], '1': [2.0]}))
    with pytest.raises(ValueError, match="student's 6 classes, but got 2"):
        tool(faster[0], '--import-json', path, '--out', out)


def test_errors(tool, faster, shapes, tmp_path, capsys):
    out = tmp_path / 'means.pth'
    with pytest.raises(FileNotFoundError, match='--out to be a file in an ex'):
        tool(*faster, '--out', tmp_path / 'no' / 'means.pth')
    with pytest.raises(ValueError, match='--out to be.*regular file'):
        tool(*faster, '--out', tmp_path)
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ValueError, match='--out to be.*regular file.*a device or a pipe'):
        tool(*faster, '--out', tmp_path / 'pipe')
    assert (tmp_path / 'pipe').is_fifo() and not list(tmp_path.glob('pipe.*'))
    with pytest.raises(FileNotFoundError, match='checkpoint.*Did you mean: t'):
        tool(faster[0], tmp_path / 'techer.pth', '--out', out)
    with pytest.raises(FileNotFoundError, match='train_dataloader.dataset.an'):
        tool(*faster, '--out', out, '--cfg-options', 'train_dataloader.dataset.ann_file=x.json')
    with pytest.raises(ValueError, match='but got 2 .disk, ring'):
        tool(*faster, '--out', out, '--cfg-options', 'train_dataloader.dataset.metainfo.classes=disk,ring')
    fcos = by_hand.files(tmp_path, shapes, FCOS, 'fcos')
    with pytest.raises(ValueError, match='the weights of the teacher Fas'):
        tool(faster[0], fcos[1], '--out', out)
    for args in (['--out', out], [*faster, '--out', out, '--max-images', 0]):
        with pytest.raises(SystemExit):
            tool(*args)
    assert 'CONFIG is required' in capsys.readouterr().err
    assert not out.exists()


def test_unsupported_head(tool, shapes, tmp_path):
    cfg = training.config(shapes, tmp_path, 'random')
    cfg.model = _rpn()
    cfg.dump(tmp_path / 'rpn.py')
    torch.save(dict(state_dict=tiny.build(cfg.model).state_dict()), tmp_path / 'rpn.pth')
    with pytest.raises(ValueError, match="the teacher's classification head"):
        tool(tmp_path / 'rpn.py', tmp_path / 'rpn.pth', '--out', tmp_path / 'means.pth')


def _rpn():
    two_stage = tiny.faster_rcnn()
    parts = ('data_preprocessor', 'backbone', 'neck', 'rpn_head')
    return dict(
        _scope_='mmdet',
        type='RPN',
        **{key: two_stage[key] for key in parts},
        train_cfg=dict(rpn=two_stage.train_cfg.rpn),
        test_cfg=dict(rpn=two_stage.test_cfg.rpn),
    )


def start(*args, processes=None):
    launch = (
        []
        if processes is None
        else ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}', '--master_port=29541']
    )
    launcher = [] if processes is None else ['--launcher', 'pytorch']
    return subprocess.Popen(
        [sys.executable, '-W', 'ignore', *launch, str(TOOL), *map(str, (*args, *launcher))],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '200', 'PYTHONPATH': str(ROOT)},
    )


@pytest.mark.slow
def test_processes_signals_and_one_after_the_other(tool, faster, tmp_path):
    """Two processes, ended by SIGTERM, gone on with by one: all the same."""
    one, two, mixed = (tmp_path / f'{name}.pth' for name in ('one', 'two', 'mixed'))
    tool(*faster, '--out', one, '--workers', 0)
    whole = load_class_means(one)

    done = start(*faster, '--out', two, '--workers', 1, processes=2)
    assert done.wait(280) == 0, done.stdout.read()[-3000:]
    assert done.stdout.read().count('class means of width') == 1

    # many times the same images, so that there is time for a signal
    large = by_hand.files(tmp_path, _enlarged(tmp_path), FASTER, 'teacher')
    job = start(*large, '--out', mixed, '--workers', 1, '--save-every', 1, processes=2)
    partials = [tmp_path / f'mixed.pth.partial.{rank}' for rank in (0, 1)]
    while job.poll() is None and not all(map(os.path.exists, partials)):
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    text = job.communicate(timeout=120)[0]
    assert job.returncode != 0 and not mixed.exists(), text
    states = [torch.load(path)['done'].sum() for path in partials]
    assert all(0 < state < 40 for state in states)
    tool(*large, '--out', mixed, '--workers', 0)
    tool(*large, '--out', tmp_path / 'straight.pth', '--workers', 0)
    for path, other in ((two, whole), (mixed, load_class_means(tmp_path / 'straight.pth'))):
        found = load_class_means(path)
        assert found.counts.tolist() == other.counts.tolist()
        # written in fp32: equal but for the last rounding
        assert_close(found.means, other.means, rtol=1e-6, atol=1e-7)
        assert found.info == other.info
    assert not list(tmp_path.glob('*partial*'))


def _enlarged(folder):
    root = folder / 'large'
    subprocess.check_call(
        [sys.executable, '-m', 'demo.make_shapes_dataset', root, '--train', '80', '--val', '4', '--size', '64', '64'],
        stdout=subprocess.DEVNULL,
    )
    return root


@pytest.mark.slow
def test_sigint_and_resumed_in_one_process(faster, tmp_path):
    large = by_hand.files(tmp_path, _enlarged(tmp_path), FASTER, 'teacher')
    out = tmp_path / 'means.pth'
    job = start(*large, '--out', out, '--workers', 1, '--save-every', 10)
    while job.poll() is None and not (tmp_path / 'means.pth.partial.0').exists():
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    text = job.communicate(timeout=120)[0]
    assert job.returncode == 130, text
    assert 'Call the same command again to go on' in text
    for name in ('means.pth', 'straight.pth'):
        done = start(*large, '--out', tmp_path / name, '--workers', 1)
        assert done.wait(280) == 0, done.stdout.read()[-3000:]
    found, straight = (load_class_means(tmp_path / name) for name in ('means.pth', 'straight.pth'))
    assert torch.equal(found.means, straight.means)  # to the last bit
    assert torch.equal(found.counts, straight.counts)


@pytest.mark.skipif(not BCCD.exists(), reason='KD_EXT_TEST_DATA names no folder with bccd')
def test_bccd(tool, tmp_path, monkeypatch):
    """Boxes scaled with the image, read from the XML files by hand."""
    monkeypatch.setenv('BCCD_ROOT', f'{BCCD}/')
    model = tiny.faster_rcnn(num_classes=3)
    torch.save(dict(state_dict=tiny.build(model).state_dict()), tmp_path / 'teacher.pth')
    (tmp_path / 'teacher.py').write_text(
        f"_base_ = '{ROOT}/configs/fcos_r18_bccd.py'\nmodel = dict(_delete_=True, **{model.to_dict()!r})\n"
    )
    out = tmp_path / 'means.pth'
    tool(tmp_path / 'teacher.py', tmp_path / 'teacher.pth', '--out', out, '--workers', 0, '--max-images', 5)
    found = load_class_means(out)
    images = list(by_hand.voc_images(BCCD, 'trainval', found.classes))
    assert len(images) == 292
    chosen = [index * len(images) // 5 for index in range(5)]
    means, counts = roi_means(by_hand.load(model, tmp_path / 'teacher.pth'), images, chosen, (320, 240))
    assert found.counts.tolist() == counts.tolist()
    assert_close(found.means, means.float(), rtol=1e-4, atol=1e-5)
    assert found.info['ann_file'] == 'trainval.txt'
