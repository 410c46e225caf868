"""Images of folders: found, left out, in batches, read."""

import os

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from kd_ext.pseudo_labels.images import ImageBatches, find_images, in_batches


def save(path, size=(8, 12), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8))
    return path


def test_each_image_of_all_folders_once(tmp_path):
    for number, name in enumerate(('a/1.jpg', 'a/deep/er/2.PNG', 'b/3.webp', 'b/4.jpeg')):
        save(tmp_path / name, seed=number)
    (tmp_path / 'a/notes.txt').write_text('no image')
    (tmp_path / 'a/deep/back').symlink_to(tmp_path / 'a')  # a circle
    (tmp_path / 'b/again').symlink_to(tmp_path / 'a/deep')
    found = find_images([str(tmp_path / 'a'), str(tmp_path / 'b'), str(tmp_path / 'a')])
    assert found.root == str(tmp_path) and not found.labelled
    assert [os.path.realpath(path) for path in found.paths] == [
        str(tmp_path / name) for name in ('a/1.jpg', 'a/deep/er/2.PNG', 'b/3.webp', 'b/4.jpeg')
    ]
    assert find_images([str(tmp_path / 'b')]).root == str(tmp_path / 'b')


def test_labelled_images_are_left_out_by_content(tmp_path):
    first, second = (save(tmp_path / f'labelled/{number}.png', seed=number) for number in range(2))
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new/copy_under_another_name.png').write_bytes(first.read_bytes())
    changed = bytearray(second.read_bytes())
    changed[-1] ^= 1  # of equal size
    (tmp_path / 'new/other.png').write_bytes(changed)
    labelled = [str(first), str(second), str(tmp_path / 'gone.png')]
    found = find_images([str(tmp_path / 'new')], labelled)
    assert found.names == ['other.png'] and found.labelled == ['copy_under_another_name.png']
    with pytest.raises(FileNotFoundError, match='others than the labelled ones, but got 2 images'):
        find_images([str(tmp_path / 'labelled')], labelled)


def test_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match='an existing folder.*gone'):
        find_images([str(tmp_path / 'gone')])
    (tmp_path / 'notes.txt').write_text('no image')
    with pytest.raises(FileNotFoundError, match='a folder with images.*without any'):
        find_images([str(tmp_path)])


def test_batches_keep_sizes_and_orientations_together(tmp_path):
    sizes = [(8, 12), (12, 8), (8, 12), (6, 12), (12, 8), (8, 12)]
    paths = [str(save(tmp_path / f'{number}.png', size)) for number, size in enumerate(sizes)]
    (tmp_path / 'broken.png').write_text('no image')
    batches = in_batches([*paths, str(tmp_path / 'broken.png')], 2)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert [1, 4] in batches  # portrait ones
    assert max(map(len, batches)) == 2
    assert not any({1, 4} & set(batch) and {0, 2, 3, 5} & set(batch) for batch in batches)


def test_unreadable_images_are_named_and_the_others_kept(tmp_path):
    good = save(tmp_path / 'good.png')
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'cut.png').write_bytes(good.read_bytes()[:40])
    paths = [str(tmp_path / name) for name in ('text.png', 'good.png', 'empty.jpg', 'cut.png', 'gone.png')]
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmdet.PackDetInputs', meta_keys=('img_id',))]
    (batch,) = ImageBatches(Config(), paths, [range(5)], pipeline)
    assert [image for image, _ in batch] == list(range(5))
    assert [isinstance(sample, str) for _, sample in batch] == [True, False, True, True, True]
    assert batch[1][1]['inputs'].shape == (3, 8, 12) and batch[1][1]['data_samples'].img_id == 1
