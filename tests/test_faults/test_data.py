"""Images, annotations and data workers that fail, and what is left then."""

import json
import shutil

import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config

from kd_ext.cli.data_check import check_data
from kd_ext.engine import policies
from kd_ext.errors import is_ours
from tests.helpers.killable_trainings import apart, go_on, go_on_without_worker
from tests.helpers.short_trainings import command, config, save_teacher

IMAGES = 'VOC2007/JPEGImages'
TRAIN = 'annotations/instances_train.json'


@pytest.fixture
def data(shapes, tmp_path):
    """A copy that may be damaged."""
    shutil.copytree(shapes, tmp_path / 'data')
    return tmp_path / 'data'


def write(folder, data, epochs=1, **changes):
    cfg = config(data, folder / 'work', save_teacher(folder), epochs, **changes)
    path = folder / 'config.py'
    cfg.dump(path)
    return path


def image(data):
    return sorted((data / IMAGES).iterdir())[0]


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how != 'gone':
        path.write_bytes({'empty': b'', 'text': b'no image at all', 'cut short': content[: len(content) // 2]}[how])


@pytest.mark.parametrize('how', ['gone', 'empty', 'text', 'cut short'])
def test_image_that_cannot_be_read(data, how):
    policies.apply()
    path = str(image(data))
    damage(image(data), how)
    with pytest.raises(OSError) as info:
        LoadImageFromFile()(dict(img_path=path))
    assert is_ours(info.value)
    assert str(info.value).startswith(f'Expected the image {path!r} to be one that can be read, but got ')


def test_training_on_an_image_that_cannot_be_read(data, tmp_path):
    path = write(tmp_path, data, **{'train_dataloader.num_workers': 1})
    assert apart(go_on, path)[0] == 0
    before = image(data).read_bytes()
    damage(image(data), 'empty')
    path = write(tmp_path, data, epochs=2)
    status, text = apart(go_on, path)
    assert status == 1 and f"the image '{image(data)}' to be" in text, text
    assert torch.load(tmp_path / 'work/epoch_1.pth')['meta']['iter'] == 2
    image(data).write_bytes(before)
    assert apart(go_on, path)[0] == 0


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (lambda path: path.write_text(''), 'an empty file'),
        (lambda path: path.write_text(' \n'), 'an empty file'),
        (lambda path: path.write_text(path.read_text()[:-9]), 'cut short'),
        (lambda path: path.write_text('{"images": [}'), 'Expecting value'),
        (
            lambda path: path.write_text(json.dumps(dict(json.loads(path.read_text()), images=[], annotations=[]))),
            'no images',
        ),
    ],
)
def test_annotations_that_cannot_be_read(data, tmp_path, change, fault):
    change(data / TRAIN)
    cfg = Config.fromfile(write(tmp_path, data))
    with pytest.raises(FileNotFoundError) as info:
        check_data(cfg, ('train', 'val'))
    assert is_ours(info.value)
    assert str(info.value).startswith(
        f"Expected train_dataloader.dataset.ann_file to be a file with annotations, but got '{data}/{TRAIN}' ({fault}"
    )


def without_boxes(data, keep):
    content = json.loads((data / TRAIN).read_text())
    kept = {one['id'] for one in content['images'][:keep]}
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] in kept]
    (data / TRAIN).write_text(json.dumps(content))


KEEP_EMPTY = {
    'train_dataloader.dataset.filter_cfg': None,
    'train_dataloader.batch_size': 1,
    'train_dataloader.dataset.pipeline.3.keep_empty': False,
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
}


def test_most_images_without_boxes(data, tmp_path):
    without_boxes(data, keep=1)
    path = write(tmp_path, data, **KEEP_EMPTY)
    status, text = apart(go_on, path)
    assert status == 0, text
    state = torch.load(tmp_path / 'work/epoch_1.pth')
    assert state['meta']['iter'] == 8
    assert all(bool(torch.isfinite(value.float()).all()) for value in state['state_dict'].values())


def test_data_worker_killed(data, tmp_path):
    path = write(tmp_path, data, epochs=2, **{'train_dataloader.num_workers': 2})
    status, text = apart(go_on_without_worker, path, 2)
    assert status == 1 and 'Traceback' not in text, text
    assert 'is killed by signal: Killed' in text
    assert 'num_workers' in text and '--resume' in text
    assert torch.load(tmp_path / 'work/epoch_1.pth')['meta']['iter'] == 2
    assert apart(go_on, path)[0] == 0


def test_the_look_before_a_training(data, tmp_path):
    without_boxes(data, keep=0)
    done = command('tools/check.py', write(tmp_path, data, **KEEP_EMPTY))
    assert done.returncode == 1 and 'Traceback' not in done.stdout
    assert 'without a single annotation' in done.stdout.replace('\n', ' ')
