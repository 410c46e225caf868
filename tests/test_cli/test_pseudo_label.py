"""tools/pseudo_label.py, from the command line to the file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from pycocotools.coco import COCO

from kd_ext.cli import pseudo_label
from kd_ext.pseudo_labels.labelling import Teacher
from tests.helpers import class_means_by_hand as by_hand
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import ROOT
from tests.helpers.labelling_teachers import CLASSES, fcos_files, label, some_labelled

TOOL = ROOT / 'tools/pseudo_label.py'


@pytest.fixture
def teacher(shapes, tmp_path):
    return fcos_files(tmp_path, shapes)


@pytest.fixture
def images(shapes, tmp_path):
    """A folder with 8 labelled images and 4 others."""
    return some_labelled(tmp_path / 'some_labelled', shapes)


def test_file_table_and_pictures(teacher, images, tmp_path, capsys):
    out, folder = tmp_path / 'labels.json', tmp_path / 'new'
    images.rename(folder)
    (folder / 'broken.jpg').write_text('no image')
    content = label(*teacher, folder, '--out', out, '--show-dir', tmp_path / 'show', '--pictures', '3')
    info = content['info']
    assert [one['file_name'] for one in content['images']] == [f'val_{number:05d}.jpg' for number in range(4)]
    assert info['labelled_left_out'] == [f'train_{number:05d}.jpg' for number in range(8)]
    assert [*info['unreadable']] == ['broken.jpg']
    assert [one['name'] for one in content['categories']] == CLASSES
    sha = subprocess.check_output(['sha256sum', teacher[1]], text=True)
    assert sha.startswith(info['checkpoint_sha256']) and info['checkpoint'] == 'teacher.pth'
    assert str(tmp_path) not in json.dumps(info)
    # each box on the side of the threshold that it is marked with
    assert content['annotations']
    for one in content['annotations']:
        threshold = info['thresholds'][CLASSES[one['category_id'] - 1]]['score']
        assert (one['score'] >= threshold) == (not one['iscrowd']) and one['score'] >= 0.5 * threshold
    boxes = sum(not one['iscrowd'] for one in content['annotations'])
    assert boxes == sum(row['boxes'] for row in info['counts'].values()) > 0
    printed = capsys.readouterr()
    assert '4 unlabelled images' in printed.out and 'broken.jpg' in printed.out and 'triangle' in printed.out
    assert '13/13 images' in printed.err  # 8 for the thresholds
    pictures = sorted((tmp_path / 'show').iterdir())
    assert len(pictures) == 3 and all(path.stat().st_size > 1000 for path in pictures)
    assert COCO(str(out)).getImgIds() == [2, 3, 4, 5]  # the first is the broken one
    assert not list(tmp_path.glob('*partial*'))


def test_scores_and_boxes_are_the_detectors_own(teacher, images, tmp_path):
    content = label(*teacher, images, '--out', tmp_path / 'labels.json', '--threshold', '0.05', '--ignore', '1')
    model = by_hand.load(tiny.fcos(num_classes=6), teacher[1])
    from mmdet.structures import DetDataSample

    for image in content['images']:
        pixels, size, _ = by_hand.picture(images / image['file_name'])
        meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), pad_shape=pixels.shape[-2:])
        with torch.no_grad():
            (own,) = model.predict(pixels, [DetDataSample(metainfo=meta)])
        own = own.pred_instances[own.pred_instances.scores >= 0.05]
        parts = [one for one in content['annotations'] if one['image_id'] == image['id']]
        assert len(parts) == len(own)
        boxes = torch.tensor([one['bbox'] for one in parts])
        boxes[:, 2:] += boxes[:, :2]
        torch.testing.assert_close(boxes, own.bboxes, atol=0.02, rtol=0)
        torch.testing.assert_close(torch.tensor([one['score'] for one in parts]), own.scores, atol=2e-4, rtol=0)
        assert [one['category_id'] - 1 for one in parts] == own.labels.tolist()


def test_images_of_the_validation_are_left_out_too(teacher, images, shapes, tmp_path):
    for name in ('val_00000.jpg', 'val_00002.jpg'):
        (images / name).write_bytes((shapes / 'VOC2007/JPEGImages' / name).read_bytes())
    content = label(*teacher, images, '--out', tmp_path / 'labels.json')
    assert [one['file_name'] for one in content['images']] == ['val_00001.jpg', 'val_00003.jpg']


def test_called_again_it_reads_the_file(teacher, images, tmp_path, monkeypatch):
    out = tmp_path / 'labels.json'
    call = (*teacher, images, '--out', out)
    first = label(*call)
    written = out.stat().st_mtime_ns
    assert label(*call) == first and out.stat().st_mtime_ns == written
    other = label(*call, '--threshold', '0.5')
    assert other['info']['thresholds']['ring']['score'] == 0.5 and out.stat().st_mtime_ns > written


@pytest.mark.parametrize('aliases', [(), ('--alias', 'disk=circle')])
def test_a_teacher_of_other_classes(shapes, images, tmp_path, aliases):
    names = ['Ring', 'boat', 'STAR', 'circle']
    files = fcos_files(tmp_path, shapes, classes=names)
    cfg = Config.fromfile(files[0])
    cfg.dump(tmp_path / 'student.py')
    content = label(
        *files, images, '--data', tmp_path / 'student.py', '--out', tmp_path / 'labels.json', '--threshold', '0.1',
        *aliases,
    )  # fmt: skip
    assert [one['name'] for one in content['categories']] == CLASSES
    found = {CLASSES[one['category_id'] - 1] for one in content['annotations']}
    assert found == {'ring', 'star', 'disk'} if aliases else found == {'ring', 'star'}


def test_masks_of_a_teacher_that_has_them(shapes, images, tmp_path):
    from tests.helpers import detector_zoo as zoo

    model = zoo.detector('Mask R-CNN')
    model['roi_head']['bbox_head']['num_classes'] = model['roi_head']['mask_head']['num_classes'] = 6
    files = by_hand.files(tmp_path, shapes, Config(dict(model=model)).model, 'masks')
    content = label(*files, images, '--out', tmp_path / 'labels.json', '--threshold', '0.1')
    file = COCO(str(tmp_path / 'labels.json'))
    assert content['annotations']
    for one in content['annotations']:
        image = content['images'][[own['id'] for own in content['images']].index(one['image_id'])]
        assert file.annToMask(file.anns[one['id']]).shape == (image['height'], image['width'])


def test_a_teacher_that_detects_nothing(shapes, images, tmp_path):
    files = fcos_files(tmp_path, shapes, bias=-20.0)
    with pytest.raises(ValueError, match=r'find objects .*no score reaches 0\.05.*checkpoint belongs to the config'):
        label(*files, images, '--out', tmp_path / 'labels.json')
    assert not (tmp_path / 'labels.json').exists()


def test_thresholds_that_nothing_reaches_keep_the_detections(teacher, images, tmp_path, monkeypatch):
    out = tmp_path / 'labels.json'
    with pytest.raises(ValueError, match='the best score is .*another --threshold'):
        label(*teacher, images, '--out', out, '--threshold', '1')
    monkeypatch.setattr(
        'kd_ext.pseudo_labels.job.DetectionJob._detect', lambda *_: pytest.fail('it was detected again')
    )
    assert label(*teacher, images, '--out', out, '--threshold', '0.1')['annotations']


def test_only_unreadable_images(teacher, tmp_path):
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new/text.jpg').write_text('no image')
    with pytest.raises(ValueError, match=r'readable, but got 1 that are not, text\.jpg first'):
        label(*teacher, tmp_path / 'new', '--out', tmp_path / 'labels.json')


def test_a_partial_result_of_another_teacher(teacher, images, shapes, tmp_path):
    out = tmp_path / 'labels.json'
    with pytest.raises(ValueError, match='--threshold'):
        label(*teacher, images, '--out', out, '--threshold', '1')
    other = fcos_files(tmp_path, shapes, 'other', bias=0.5)
    with pytest.raises(ValueError, match='partial.0.*one of another checkpoint.*--fresh'):
        label(*other, images, '--out', out)
    assert label(*other, images, '--out', out, '--fresh')['info']['checkpoint'] == 'other.pth'


@pytest.mark.parametrize(
    'changes, said',
    [
        (('--ignore', '0'), '--ignore to be above 0'),
        (('--threshold', 'rong=0.5'), 'Did you mean: ring'),
        (('--alias', 'disk'), '--alias to be CLASS=NAME'),
        (('--data', 'gone.py'), 'gone.py'),
    ],
)
def test_wrong_options(teacher, images, tmp_path, changes, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        label(*teacher, images, '--out', tmp_path / 'labels.json', *changes)


def test_classes_that_have_nothing_in_common(shapes, images, tmp_path):
    files = fcos_files(tmp_path, shapes, classes=['boat', 'car'])
    with pytest.raises(ValueError, match='among those of the data by name.*--alias'):
        label(*files, images, '--data', files[0], '--out', tmp_path / 'labels.json')


def test_one_of_several_teachers_has_to_be_named():
    cfg = Config(
        dict(model=dict(type='kd_ext.DetectionDistill', teacher=tiny.fcos(), classes=dict(teacher=dict(a=['x']))))
    )
    with pytest.raises(ValueError, match='the teacher to be one, but got 1: a'):
        pseudo_label.teacher_of(cfg, 'config.py', 'a.pth')
    cfg.model.classes = dict(teacher=['x'], aliases=dict(y='x'))
    assert pseudo_label.teacher_of(cfg, 'config.py', 'a.pth') == Teacher(
        cfg, cfg.model.teacher, 'a.pth', 'FCOS', ['x'], dict(y='x')
    )


def start(*args, processes=1):
    begin = [sys.executable, '-W', 'ignore']
    if processes > 1:
        begin += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        args = (*args, '--launcher', 'pytorch')
    return subprocess.Popen(
        [*begin, str(TOOL), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
    )


def many(images, folder, times=6):
    """Many images with a name of their own; copies of the labelled ones would be left out, so each is changed."""
    folder.mkdir()
    for index in range(times):
        for path in images.iterdir():
            (folder / f'{index}_{path.name}').write_bytes(path.read_bytes() + bytes([index]))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_killed_in_the_middle_and_resumed(teacher, images, tmp_path, processes):
    folder, out = many(images, tmp_path / 'many', 40), tmp_path / 'labels.json'
    straight = label(*teacher, folder, '--out', tmp_path / 'straight.json', '--batch-size', 2)
    job = start(*teacher, folder, '--out', out, '--batch-size', 2, '--workers', 0, processes=processes)
    partial = tmp_path / f'labels.json.partial.{processes - 1}'
    while job.poll() is None and not (partial.exists() and partial.read_text().count('\n') > 3):
        time.sleep(0.01)
    # those that the launcher started are in sessions of their own
    workers = Path(f'/proc/{job.pid}/task/{job.pid}/children').read_text().split()
    for pid in (job.pid, *map(int, workers)):
        os.kill(pid, signal.SIGKILL)
    text = job.communicate()[0]
    reached = sum(path.read_text().count('\n') - 1 for path in tmp_path.glob('labels.json.partial.*'))
    assert 2 < reached < 240 and not out.exists(), text[-3000:]
    with open(partial, 'a') as file:
        file.write('[7, [[14, {"size": [64, 6')  # what a full disk or a crash leaves behind
    job = start(*teacher, folder, '--out', out, '--batch-size', 2, '--workers', 1, processes=processes)
    text = job.communicate(timeout=200)[0]
    assert job.returncode == 0, text[-3000:]
    assert json.loads(out.read_text()) == straight
    assert not list(tmp_path.glob('*partial*'))


@pytest.mark.slow
def test_interrupted_it_says_how_to_go_on(teacher, images, tmp_path):
    folder, out = many(images, tmp_path / 'many'), tmp_path / 'labels.json'
    job = start(*teacher, folder, '--out', out, '--batch-size', 1, '--workers', 1)
    partial = tmp_path / 'labels.json.partial.0'
    while job.poll() is None and not (partial.exists() and partial.read_text().count('\n') > 2):
        time.sleep(0.01)
    os.kill(job.pid, signal.SIGTERM)
    text = job.communicate(timeout=120)[0]
    assert job.returncode == 143 and 'Call the same command again to go on' in text
    assert not out.exists() and partial.exists()
