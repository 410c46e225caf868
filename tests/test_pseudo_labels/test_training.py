"""Files of labels in the config of a training, on stock data sets and samplers."""

import json
from collections import Counter

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from kd_ext.algorithms import DetectionDistill
from kd_ext.cli import train
from kd_ext.data.labelled import LabelledData
from kd_ext.pseudo_labels.coco_file import coco_content, labels_report, read_labels
from kd_ext.pseudo_labels.thresholds import Threshold
from kd_ext.pseudo_labels.training import unlabelled_config
from tests.helpers import short_trainings as training
from tests.helpers import tiny_detectors as tiny
from tests.helpers.data_sets import ROOT
from tests.helpers.labelling_teachers import CLASSES, fcos_files, some_labelled

MASK = dict(size=[64, 64], counts='0_1o0')


def write_labels(folder, shapes, classes=CLASSES, masks=False, **changes):
    """A file by hand: on each image of the validation a label, a box below the threshold, and one far below."""
    names = [f'val_{number:05d}.jpg' for number in range(4)]
    found = dict(
        size=[64, 64],
        boxes=[[4, 4, 24, 24], [30, 30, 50, 60], [1, 1, 9, 9]],
        labels=[0, 2, 2],
        scores=[0.8, 0.3, 0.1],
        **(dict(masks=[MASK] * 3) if masks else {}),
    )
    thresholds = {name: Threshold(0.5, 0.7, 'best F1') for name in classes}
    info = dict(labelled_left_out=[], image_root=str(shapes / 'VOC2007/JPEGImages'), checkpoint='t.pth')
    info.update(checkpoint_sha256='0' * 16, **changes)
    content = coco_content([*names, 'broken.jpg'], [found] * 4 + ['cut short'], classes, thresholds, 0.5, info)
    path = folder / 'labels.json'
    path.write_text(json.dumps(content))
    return path


def plain(shapes, folder, model=None, **changes):
    cfg = training.config(shapes, folder / 'run', 'random', **changes)
    cfg.model = model or training.STUDENT
    return cfg


def built(cfg):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(cfg.train_dataloader.dataset)


def test_the_file_loads_in_pycocotools_and_mmdet(shapes, tmp_path):
    path = write_labels(tmp_path, shapes, masks=True)
    coco = COCO(str(path))
    assert len(coco.getAnnIds(iscrowd=False)) == len(coco.getAnnIds(iscrowd=True)) == 4
    assert all(coco.annToMask(one).shape == (64, 64) for one in coco.anns.values())
    assert {one['score'] for one in coco.anns.values()} == {0.8, 0.3}
    data = CocoDataset(str(path), metainfo=dict(classes=CLASSES), pipeline=[], data_prefix=dict(img='x'))
    assert len(data) == 4
    for index in range(4):
        label, ignored = data.get_data_info(index)['instances']
        assert (label['bbox'], label['bbox_label'], label['ignore_flag']) == ([4, 4, 24, 24], 0, 0)
        assert (ignored['bbox'], ignored['bbox_label'], ignored['ignore_flag']) == ([30, 30, 50, 60], 2, 1)
        assert label['mask'] == MASK


def test_the_report(shapes, tmp_path):
    text = labels_report(read_labels(write_labels(tmp_path, shapes))['info'])
    rows = {line.split()[0]: line.split() for line in text.splitlines()}
    assert '4 unlabelled images, 4 of them with boxes' in text and 'broken.jpg (cut short)' in text
    assert rows['disk'] == ['disk', '4', '100%', '0', '0.500', '0.700', 'best', 'F1']
    assert rows['triangle'][:4] == ['triangle', '0', '0%', '4'] and rows['ring'][2] == '-'
    assert rows['all'] == ['all', '4', '33%', '4']


@pytest.mark.parametrize('ratio, count', [(0.25, 2), (0.5, 4), (3, 4)])
def test_by_epoch(shapes, tmp_path, ratio, count):
    cfg = plain(shapes, tmp_path)
    said = unlabelled_config(cfg, write_labels(tmp_path, shapes), ratio)
    assert f'all 8 labelled images and {count} of the 4' in said[0]
    data = built(cfg)
    assert type(data).__name__ == 'ConcatDataset' and [len(part) for part in data.datasets] == [8, 4]
    assert data.metainfo['classes'] == data.datasets[0].metainfo['classes']  # one set, not a list of two
    runner = Runner.from_cfg(cfg)
    loader = runner.build_dataloader(cfg.train_dataloader, seed=0)
    seen = Counter(sample.img_path for batch in loader for sample in batch['data_samples'])
    assert sum(seen.values()) == 8 + count and set(seen.values()) == {1}
    assert sum('val_' in path for path in seen) == count
    assert LabelledData(cfg, 'train').classes == CLASSES


@pytest.mark.parametrize('batch, ratio, labelled', [(4, 1, 2), (4, 3, 1), (6, 2, 2), (3, 1, 1.5)])
def test_by_iteration_and_by_aspect_ratio(shapes, tmp_path, batch, ratio, labelled):
    cfg = plain(shapes, tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    cfg.train_dataloader.update(batch_size=batch, sampler=dict(type='InfiniteSampler', shuffle=True))
    cfg.train_dataloader.batch_sampler = dict(type='AspectRatioBatchSampler')
    cfg.merge_from_dict({'train_dataloader.dataset._scope_': 'mmdet'})
    unlabelled_config(cfg, write_labels(tmp_path, shapes), ratio)
    with DefaultScope.overwrite_default_scope('mmdet'):
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batches = [batch['data_samples'] for _, batch in zip(range(6), loader)]
    counts = [sum('train_' in sample.img_path for sample in one) for one in batches]
    assert all(len(one) == batch for one in batches)
    if labelled == 1.5:  # two batches together have the ratio
        assert sum(counts) == 9
    else:
        assert set(counts) == {labelled}


def test_regions_below_the_threshold_are_ignored_where_the_student_can(shapes, tmp_path):
    path = write_labels(tmp_path, shapes)
    cfg = plain(shapes, tmp_path, tiny.faster_rcnn(num_classes=6))
    said = unlabelled_config(cfg, path)[1]
    assert '4 regions' in said and 'ignored by train_cfg.rpn.assigner, train_cfg.rcnn.assigner' in said
    data = built(cfg)
    sample = next(data[index] for index in range(8, 12))['data_samples']
    assert len(sample.gt_instances) == len(sample.ignored_instances) == 1
    model = tiny.build(cfg.model)
    region = sample.ignored_instances.bboxes.tensor
    for one in (sample.gt_instances, sample.ignored_instances):  # as a data preprocessor does
        one.bboxes = one.bboxes.tensor
    priors = torch.cat([region, region + torch.tensor([1.0, 1, -1, -1]), torch.tensor([[0.0, 0, 3, 3]])])
    assigned = model.roi_head.bbox_assigner.assign(
        InstanceData(priors=priors), sample.gt_instances, sample.ignored_instances
    )
    assert assigned.gt_inds.tolist() == [-1, -1, 0]  # ignored, ignored, background
    fcos = plain(shapes, tmp_path)
    assert 'background: this student has no assigner' in unlabelled_config(fcos, path)[1]
    assert fcos.model == training.STUDENT


def test_masks_are_loaded_as_bitmaps(shapes, tmp_path):
    cfg = plain(shapes, tmp_path)
    cfg.train_dataloader.dataset.pipeline[1].update(with_mask=True, poly2mask=False)
    with pytest.raises(ValueError, match='with masks, which the training pipeline loads, but got boxes alone'):
        unlabelled_config(Config(cfg.to_dict()), write_labels(tmp_path, shapes))
    unlabelled_config(cfg, write_labels(tmp_path, shapes, masks=True))
    assert not cfg.train_dataloader.dataset.datasets[0].pipeline[1].poly2mask
    sample = built(cfg)[8]['data_samples']
    assert len(sample.gt_instances) == 1 and sample.gt_instances.masks.masks.shape == (1, 64, 64)


def test_data_in_other_formats(shapes, tmp_path, monkeypatch):
    """Of VOC, whose meta information has other keys, repeated."""
    cfg = plain(shapes, tmp_path)
    part = cfg.train_dataloader.dataset
    voc = dict(
        type='VOCDataset', _scope_='mmdet', data_root=str(shapes), ann_file='VOC2007/ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root='VOC2007/'), metainfo=dict(classes=tuple(CLASSES)), pipeline=part.pipeline,
    )  # fmt: skip
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', _scope_='mmdet', times=2, dataset=voc)
    said = unlabelled_config(cfg, write_labels(tmp_path, shapes), 0.25)
    assert 'all 16 labelled images and 4 of' in said[0]
    data = built(cfg)
    assert len(data) == 20 and data.metainfo['classes'] == tuple(CLASSES)
    assert data[19]['data_samples'].gt_instances.labels.tolist() == [0]


def mixed(cfg):
    inner = cfg.train_dataloader.dataset.to_dict()
    cfg.train_dataloader.dataset = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[])


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda cfg: cfg.train_dataloader.dataset.update(metainfo=dict(classes=['a', 'b'])), 'labels.json.* --data'),
        (lambda cfg: cfg.train_dataloader.dataset.pipeline[1].update(with_seg=True), 'without with_seg'),
        (mixed, 'without MultiImageMixDataset.*CachedMosaic'),
    ],
)
def test_configs_that_cannot_take_them(shapes, tmp_path, change, said):
    cfg = plain(shapes, tmp_path)
    change(cfg)
    with pytest.raises(ValueError, match=said):
        unlabelled_config(cfg, write_labels(tmp_path, shapes))


@pytest.mark.parametrize('ratio', [0, -1, float('nan')])
def test_wrong_ratios(shapes, tmp_path, ratio):
    with pytest.raises(ValueError, match='--unlabelled-ratio to be a number > 0'):
        unlabelled_config(plain(shapes, tmp_path), tmp_path / 'x.json', ratio)


@pytest.mark.parametrize(
    'text, said', [(None, 'kd_ext pseudo-label'), ('{', 'file of labels'), ('{"info": {}}', 'none')]
)
def test_files_of_another_kind(tmp_path, text, said):
    path = tmp_path / 'x.json'
    if text:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read_labels(path)


def distilled(shapes, folder, *more):
    """Arguments of a training of one epoch under a teacher that labels."""
    config, checkpoint = fcos_files(folder, shapes)
    cfg = plain(shapes, folder, epochs=1, log_level='INFO')
    cfg.dump(folder / 'student.py')
    some_labelled(folder / 'new', shapes)
    return [
        *map(str, (folder / 'student.py', '--teacher', config, '--teacher-ckpt', checkpoint, '--skip-check')),
        *('--distill', 'rcka', '--work-dir', str(folder / 'out'), *more),
    ]


@pytest.mark.slow
def test_one_argument(shapes, tmp_path, monkeypatch):
    call = distilled(shapes, tmp_path, '--unlabelled', str(tmp_path / 'new'), '--show-dir', str(tmp_path / 'show'))
    seen, loss = [], DetectionDistill.loss
    monkeypatch.setattr(
        DetectionDistill,
        'loss',
        lambda self, inputs, samples: (seen.append([one.img_path for one in samples]), loss(self, inputs, samples))[1],
    )
    train.main.__wrapped__(call)
    paths = [path for batch in seen for path in batch]
    assert sum('val_' in path for path in paths) == 4 and sum('train_' in path for path in paths) == 8
    assert len(list((tmp_path / 'show').iterdir())) == 4
    content = read_labels(tmp_path / 'out/unlabelled.json')
    assert len(content['info']['labelled_left_out']) == 8
    log = next((tmp_path / 'out').glob('*/*.log')).read_text()
    assert '4 unlabelled images' in log and 'an epoch has all 8 labelled images and 4 of the 4' in log
    # the dumped config is stock: mmdet's runner trains with it, without this package's tools
    dumped = Config.fromfile(tmp_path / 'out/student.py')
    dumped.model = training.STUDENT
    dumped.experiment_name, dumped.work_dir = 'stock', str(tmp_path / 'stock')
    assert not any(name in json.dumps(dumped.train_dataloader.to_dict(), default=str) for name in ('kd_ext.',))
    training.train(dumped)
    # labelled once: the second call takes the file
    monkeypatch.setattr('kd_ext.pseudo_labels.job.DetectionJob.run', lambda *_: pytest.fail('labelled again'))
    train.main.__wrapped__([*call, '--resume'])
    # of another teacher
    other = fcos_files(tmp_path, shapes, bias=1.0)
    assert other[1].exists()
    with pytest.raises(ValueError, match='unlabelled.json.*another checkpoint.*--work-dir'):
        train.main.__wrapped__(call)
    call[call.index('--unlabelled') + 1] = str(tmp_path / 'out/unlabelled.json')
    with pytest.raises(ValueError, match=r'of the teacher teacher\.pth .*but got those of teacher\.pth'):
        train.main.__wrapped__(call)


def test_folders_need_a_teacher(shapes, tmp_path):
    plain(shapes, tmp_path).dump(tmp_path / 'student.py')
    call = [str(tmp_path / 'student.py'), '--work-dir', str(tmp_path / 'out')]
    with pytest.raises(
        ValueError, match='--unlabelled to be a file of labels where nothing distills.*--teacher CONFIG'
    ):
        train.main.__wrapped__([*call, '--unlabelled', str(shapes)])


def test_a_resumed_training_goes_on_with_the_same_images(shapes, tmp_path):
    """By epoch, mmdet's sampler draws on where the last epoch ended; ExactResumeHook restores that."""
    path, orders = write_labels(tmp_path, shapes), {}
    for name, epochs in dict(first=1, resumed=3, straight=3).items():
        cfg = plain(shapes, tmp_path, epochs=epochs)
        cfg.custom_hooks = [dict(type='kd_ext.ExactResumeHook')]
        cfg.randomness = dict(seed=3)
        cfg.work_dir = str(tmp_path / ('straight' if name == 'straight' else 'broken'))
        cfg.experiment_name = f'{name}_{tmp_path.name}'
        cfg.visualizer.name = cfg.experiment_name
        cfg.resume = name == 'resumed'
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        unlabelled_config(cfg, path, 0.25)
        runner = Runner.from_cfg(cfg)
        orders[name] = seen = []
        model = runner.model
        step = model.train_step
        model.train_step = lambda data, optim_wrapper, step=step, seen=seen: (
            seen.extend(one.img_path for one in data['data_samples']),
            step(data, optim_wrapper),
        )[1]
        runner.train()
    assert orders['first'] + orders['resumed'] == orders['straight']
    assert len({one for one in orders['straight'] if 'val_' in one}) > 2


def test_shipped_faster_rcnn_of_mmdet(shapes, tmp_path):
    """Its AspectRatioBatchSampler and its polygons go on working; the config is read, not trained."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/faster-rcnn_180k_coco.py')
    assert cfg.train_dataloader.batch_sampler.type == 'AspectRatioBatchSampler'
    names = list(CocoDataset.METAINFO['classes'])
    said = unlabelled_config(cfg, write_labels(tmp_path, shapes, names), 4)
    assert cfg.train_dataloader.batch_sampler.type == 'AspectRatioBatchSampler'
    assert cfg.train_dataloader.sampler.source_ratio == [1, 4] and 'are labelled ones' in said[0]
    assert 'train_cfg.rcnn.assigner' in said[1]
