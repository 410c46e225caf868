"""A segmentor trains, is scored and exported, on real label maps."""

import pytest
import torch

pytest.importorskip('mmseg', reason="segmentation is an extra: pip install 'kd_ext[seg]'")

from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from tests.helpers.data_sets import COCO128  # noqa: E402
from tests.helpers.tiny_segmentors import build, config, segmentor, shrink  # noqa: E402

STUDENT = 'deeplabv3plus_r18_voc12aug.py'
# the most frequent of the panoptic ids; all others are one more class
IDS = dict(person=1, sky=187, wall=199, grass=193, tree=184)
CLASSES = (*IDS, 'other')
CROP = (64, 64)


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    """A few of the images and label maps, at a fifth of their size."""
    if not COCO128.exists():
        pytest.skip('KD_EXT_TEST_DATA names no folder with COCO128')
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp('seg')
    table = np.full(256, len(IDS), np.uint8)
    table[0] = 255  # unlabelled
    table[list(IDS.values())] = range(len(IDS))
    for split, count in (('train', 8), ('val', 3)):
        for kind in ('images', 'labels'):
            (root / split / kind).mkdir(parents=True)
        labels = sorted((COCO128 / f'semantic_{split}2017').glob('*.png'))
        for path in labels[:count]:
            image = Image.open(COCO128 / f'{split}2017' / f'{path.stem}.jpg')
            label = Image.fromarray(table[np.array(Image.open(path))])
            size = [side // 5 for side in label.size]
            image.convert('RGB').resize(size).save(root / split / 'images' / f'{path.stem}.jpg')
            label.resize(size, Image.NEAREST).save(root / split / 'labels' / path.name)
    return root


@pytest.fixture(autouse=True)
def own_default_scope():
    """A runner's default scope outlives it: the other tests are mmdet's."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def run_config(data_root, work_dir, iters):
    """The config of a published pair, with small data and models."""
    cfg = config('lipschitz_deeplabv3plus_r101_r18_voc12aug.py')
    for split, batch_size, pipeline in (('train', 2, cfg.train_pipeline), ('val', 1, cfg.test_pipeline)):
        for transform in pipeline:
            transform.update({key: CROP for key in ('crop_size', 'size') if key in transform})
            if 'scale' in transform:
                transform['scale'] = (128, 96)
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
        loader.dataset = dict(
            type='BaseSegDataset',
            data_root=str(data_root / split),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            img_suffix='.jpg',
            seg_map_suffix='.png',
            pipeline=pipeline,
            metainfo=dict(classes=CLASSES, palette=[[40 * k] * 3 for k in range(len(CLASSES))]),
        )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.merge_from_dict(
        {
            'data_preprocessor.size': CROP,
            'work_dir': str(work_dir),
            'train_cfg.max_iters': iters,
            'train_cfg.val_interval': iters,
            'default_hooks.checkpoint.interval': iters,
            'default_hooks.logger.interval': 1,
            'log_level': 'ERROR',
            'randomness': dict(seed=0),
            'experiment_name': 'test_segmentation',
        }
    )
    return cfg


def test_trains_scores_and_exports(data_root, tmp_path):
    cfg = run_config(data_root, tmp_path / 'run', iters=4)
    student = segmentor(STUDENT, num_classes=len(CLASSES))
    teacher = segmentor(STUDENT, 8, num_classes=len(CLASSES))
    torch.save(dict(state_dict=build(teacher).state_dict()), tmp_path / 'teacher.pth')
    cfg.model.update(student=student, teacher=teacher, teacher_ckpt=str(tmp_path / 'teacher.pth'))
    runner = Runner.from_cfg(cfg)
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 4
    for name, parameter in runner.model.named_parameters():
        assert bool(torch.isfinite(parameter).all()), name
    assert any(not torch.equal(p, before[name]) for name, p in runner.model.named_parameters() if 'backbone' in name)
    scalars = runner.message_hub.log_scalars
    assert scalars['train/distill.loss_lipschitz'].current() > 0
    assert 0 <= scalars['val/mIoU'].current() <= 100

    state = torch.load(tmp_path / 'run/iter_4.pth')['state_dict']
    plain = build(shrink(config(STUDENT).model, num_classes=len(CLASSES)), 1)
    plain.load_state_dict(state, strict=True)
    images = torch.randn(1, 3, *CROP)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), runner.model.student.eval()(images))
