"""Every config loads, builds and steps once."""

import copy
import functools
from pathlib import Path

import mmdet
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from kd_ext.build.probe import blank_samples
from kd_ext.cli.class_means import parse_args
from tests.helpers.data_sets import BCCD, ROOT
from tests.helpers.shrunken_configs import data, distilled, give_prototypes, shrink

CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('*.py'))
# their models are built and stepped in test_segmentation.py
SEGMENTORS = [name for name in CONFIGS if name.endswith(('_voc12aug.py', '_cityscapes.py'))]
DISTILLED = [
    name
    for name in CONFIGS
    if name not in SEGMENTORS and ('distill' in (ROOT / 'configs' / name).read_text() or 'coco128' in name)
]
VOC = [name for name in CONFIGS if name.endswith('_voc0712.py')]


def fresh(name):
    """A config as the environment is now."""
    if name in SEGMENTORS:
        pytest.importorskip('mmseg', reason='segmentation is an extra')
    return Config.fromfile(ROOT / 'configs' / name)


load = functools.cache(fresh)


@pytest.mark.parametrize('name', CONFIGS)
def test_leaf_is_short_and_complete(name):
    lines = (ROOT / 'configs' / name).read_text().splitlines()
    code = [line for line in lines if line and not line.startswith('#')]
    # a pair, an entry, and what differs; coco128 has a data set of its own
    limit = 12 if 'distill' in ''.join(code) else 25
    assert len(code) <= limit and max(map(len, lines)) <= 79
    cfg = load(name)
    for key in (
        'model',
        'train_dataloader',
        'val_dataloader',
        'val_evaluator',
        'train_cfg',
        'optim_wrapper',
        'param_scheduler',
        'default_hooks',
    ):
        assert key in cfg, key


@pytest.mark.parametrize('name', DISTILLED)
def test_builds_and_steps_once(name):
    cfg = load(name)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(distilled(cfg, name))
    give_prototypes(model)
    assert model.distiller.terms.keys() == cfg.model.distill.keys()
    losses = model(**model.data_preprocessor(data(name), True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    for key in cfg.model.distill:
        names = {f'distill.loss_{key}', f'distill.loss_{key}_nc1', f'distill.loss_{key}_nc2'}
        terms = [float(losses[term].detach()) for term in names & losses.keys()]
        assert terms and sum(terms) > 0
    gradients = [p.grad for p in model.student.backbone.parameters() if p.requires_grad and p.grad is not None]
    assert any(bool(g.abs().sum() > 0) for g in gradients)
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


@pytest.mark.parametrize('name', [n for n in VOC if n not in DISTILLED])
def test_plain_config_fits_at_full_size(name):
    # mmdet has no such config: the widths of its parts are ours
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(load(name).model).eval()
    side = 300 if 'ssd300' in name else 64
    with torch.no_grad():
        images = torch.zeros(1, 3, side, side)
        model(images, blank_samples(model, images), mode='tensor')
    head = model.roi_head if hasattr(model, 'roi_head') else model
    assert head.bbox_head.num_classes == 20


@pytest.mark.parametrize('name', [n for n in DISTILLED if n in VOC or 'bccd' in n or '-half_' in n])
def test_teacher_has_a_config_that_trains_it(name):
    model = load(name).model
    package, _, teacher = model.teacher.partition('::')
    assert package == 'kd_ext' and teacher in CONFIGS
    epochs = load(teacher).train_cfg.max_epochs
    assert model.teacher_ckpt == f'work_dirs/{Path(teacher).stem}/epoch_{epochs}.pth'


@pytest.mark.parametrize('name', [n for n in DISTILLED if n.endswith('_coco.py')])
def test_teacher_and_weights_are_of_one_model(name):
    model = load(name).model
    folder, file = model.teacher.removeprefix('mmdet::').split('/')
    index = Path(mmdet.__file__).parent / '.mim/configs' / folder
    entries = yaml.safe_load((index / 'metafile.yml').read_text())['Models']
    weights = [entry['Weights'] for entry in entries if entry['Config'].endswith(f'/{file}')]
    assert weights == [model.teacher_ckpt]


@pytest.mark.parametrize('name', VOC)
def test_voc_is_scored_by_mmdets_metric(name):
    cfg = load(name)
    assert cfg.val_evaluator.type == 'VOCMetric'
    assert cfg.val_evaluator.metric == 'mAP'


@pytest.mark.parametrize('name', [n for n in CONFIGS if '_mask-rcnn_' in n])
def test_instance_segmentation_has_box_and_mask_ap(name):
    cfg = load(name)
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    assert cfg.model.student.roi_head.mask_head.num_classes == 80


@pytest.mark.parametrize('name', [n for n in CONFIGS if '_base_/pairs/' in (ROOT / 'configs' / n).read_text()])
def test_a_part_is_logged_under_its_own_name(name):
    parts = {path.stem for path in (ROOT / 'configs/_base_/distill').glob('*.py')}
    assert load(name).model.distill.keys() <= parts | {'ofd', 'dkd'}


def test_a_teachers_weights_are_named_in_pairs_only():
    for name in CONFIGS:
        text = (ROOT / 'configs' / name).read_text()
        assert 'teacher=' not in text and 'teacher_ckpt' not in text, name


@pytest.mark.parametrize(
    ('name', 'inter', 'lr'),
    [
        ('rcka_fcos_r101_r50_coco.py', 0.0, 0.01),
        ('rcka_fcos_r101_r50-single-scale_coco.py', 0.0, 0.01),
        ('rcka_retinanet_x101_r50_coco.py', 0.0, 0.01),
        ('rcka_retinanet_r101_r50_coco.py', 0.0, 0.01),
        ('rcka_reppoints_x101_r50_coco.py', 0.0, 0.01),
        ('rcka_gfl_r101_r50_coco.py', 1.0, 0.02),
        ('rcka_faster-rcnn_r101_r50_coco.py', 1.0, 0.02),
        ('rcka_faster-rcnn_cascade-mask-x101_r50_coco.py', 1.0, 0.02),
        ('rcka_mask-rcnn_cascade-mask-x101_r50_coco.py', 1.0, 0.02),
        ('rcka_mask-rcnn_r101_r50_coco.py', 1.0, 0.02),
    ],
)
def test_published_rcka(name, inter, lr):
    cfg = load(name)
    entry = cfg.model.distill.rcka
    assert entry.levels == (0, 1, 2, 3) and entry.center is False
    assert (entry.intra_weight, entry.inter_weight) == (1.0, inter)
    assert entry.loss_weight == 10.0 and cfg.train_cfg.max_epochs == 24
    assert cfg.param_scheduler[1].milestones == [16, 22] and cfg.param_scheduler[1].end == 24
    assert cfg.optim_wrapper.optimizer.lr == lr


def test_fcos_as_released():
    cfg = load('rcka_fcos_r101_r50-single-scale_coco.py')
    resize = cfg.train_dataloader.dataset.pipeline[2]
    assert (resize.type, resize.scale) == ('Resize', (1333, 800))
    assert cfg.param_scheduler[0].type == 'LinearLR'
    assert cfg.optim_wrapper.keys() <= {'type', 'optimizer', '_scope_'}
    twin = load('rcka_fcos_r101_r50_coco.py').model
    assert (twin.teacher_ckpt, twin.distill) == (cfg.model.teacher_ckpt, cfg.model.distill)


ND = [
    n
    for n in CONFIGS
    if n.startswith(('kdpp_', 'reviewkdpp_', 'dkdpp_', 'kd_', 'reviewkd_')) and n.endswith('_coco.py')
]


@pytest.mark.parametrize('name', ND)
def test_published_nd(name):
    cfg = load(name)
    method, pair = name.split('_', 1)
    # KD++: KL and ND; ReviewKD++: ReviewKD and ND
    kl, nd, review, nd_review = {
        'faster-rcnn_r101_r18_coco.py': (1.0, 1.5, 1.2, 1.5),
        'faster-rcnn_r101_r50_coco.py': (1.0, 1.0, 1.4, 1.0),
        'faster-rcnn_r50_mobilenet-v2_coco.py': (1.0, 1.0, 2.2, 1.5),
    }[pair]
    published = dict(kdpp=dict(kd=kl, nd=nd), reviewkdpp=dict(reviewkd=review, nd=nd_review), kd=dict(kd=kl))
    weights = {key: entry.get('loss_weight') for key, entry in cfg.model.distill.items()}
    assert weights == published.get(method, weights)
    schedule = cfg.param_scheduler[1]
    assert (cfg.train_cfg.max_iters, schedule.milestones) == (180000, [120000, 160000])
    assert cfg.optim_wrapper.optimizer.lr == 0.01 and cfg.auto_scale_lr.base_batch_size == 8
    sides = [min(scale) for scale in cfg.train_dataloader.dataset.pipeline[2].scales]
    assert sides == [640, 672, 704, 736, 768, 800] and '_ms-3x_' in cfg.model.teacher


@pytest.mark.parametrize('name', [n for n in CONFIGS if 'tools/class_means.py' in (ROOT / 'configs' / n).read_text()])
def test_header_makes_the_class_means(name):
    lines = (ROOT / 'configs' / name).read_text().splitlines()
    words = ' '.join(line.strip('# \\') for line in lines if line.startswith('#   ')).split()
    python, tool, *args = words
    assert (python, tool) == ('python', 'tools/class_means.py')
    parsed = parse_args(args, None)
    cfg, other = load(name), load(Path(parsed.config).name)
    used = {entry.class_means for entry in cfg.model.distill.values() if 'class_means' in entry}
    assert used == {parsed.out}
    # any config of the pair makes the same file
    assert (other.model.teacher, other.model.teacher_ckpt) == (cfg.model.teacher, cfg.model.teacher_ckpt)
    assert other.train_dataloader.dataset.ann_file == cfg.train_dataloader.dataset.ann_file


def test_class_means_of_a_file_have_their_command():
    for name in DISTILLED:
        text = (ROOT / 'configs' / name).read_text()
        for entry in load(name).model.distill.values():
            if str(entry.get('class_means', '')).endswith('.pth'):
                # the ablations name the config whose class means they share
                assert 'tools/class_means.py' in text or "_base_ = './kdpp_" in text, name


@pytest.mark.parametrize(('part', 'other'), [('direction', 'norm'), ('norm', 'direction')])
def test_ablations_of_nd(part, other):
    name = 'faster-rcnn_r101_r18_coco.py'
    whole, half = load(f'kdpp_{name}').model, load(f'kdpp-{part}_{name}').model
    assert dict(half.distill.nd) == dict(whole.distill.nd, **{other: False})
    assert half.distill.kd == whole.distill.kd and half.teacher_ckpt == whole.teacher_ckpt


@pytest.mark.parametrize('name', [n for n in CONFIGS if n.endswith('_cityscapes.py')])
def test_logit_cka_is_the_released_form_or_called_ours(name):
    entry = load(name).model.distill.rcka
    assert (entry.intra_weight, entry.inter_weight, entry.loss_weight) == (1.0, 1.0, 10.0)
    form = ('pixels', True) if name.startswith('rcka-pixels_') else ('images', False)
    assert (entry.samples, entry.center) == form


def test_the_plain_config_of_nc3_reads_its_students():
    name = 'nckd_faster-rcnn_r101_r50-nc3_coco.py'
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(distilled(load(name), name))
        plain = MODELS.build(shrink(copy.deepcopy(load('faster-rcnn_r50-nc3_coco.py').model)))
    give_prototypes(model)
    plain.load_state_dict(model.student.state_dict())
    predictor = plain.roi_head.bbox_head.fc_cls
    assert torch.equal(predictor.class_means, model.student.roi_head.bbox_head.fc_cls.class_means)


def test_bccd_can_be_validated(monkeypatch):
    root = BCCD
    if not root.exists():
        pytest.skip('KD_EXT_TEST_DATA names no folder with BCCD')
    monkeypatch.setenv('BCCD_ROOT', f'{root}/')
    from mmdet.registry import DATASETS

    loader = fresh('fcos_r18_bccd.py').val_dataloader
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert len(DATASETS.build(loader.dataset)) == 72


# the plain configs: those that distill take their data
@pytest.mark.parametrize('name', [n for n in CONFIGS if 'bccd' in n and n not in DISTILLED])
def test_boxes_without_area_are_not_trained_on(name, monkeypatch):
    root = BCCD
    if not root.exists():
        pytest.skip('KD_EXT_TEST_DATA names no folder with BCCD')
    monkeypatch.setenv('BCCD_ROOT', f'{root}/')
    from mmdet.registry import DATASETS

    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(fresh(name).train_dataloader.dataset)
    assert len(dataset) == 292
    flat = 0
    for index in range(len(dataset)):
        for item in dataset.get_data_info(index)['instances']:
            x1, y1, x2, y2 = item['bbox']
            if min(x2 - x1, y2 - y1) < 2:
                flat += 1
                assert item['ignore_flag'] == 1
    assert flat >= 1  # the flaw is there, and marked
    sample = dataset[0]['data_samples'].gt_instances
    sizes = sample.bboxes.tensor[:, 2:] - sample.bboxes.tensor[:, :2]
    assert bool((sizes > 0).all())


def test_bases_share_no_key():
    # MMEngine refuses it; loading every config above is the proof, this
    # names the parts that nothing uses
    parts = list(Path(ROOT / 'configs/_base_').rglob('*.py'))
    used = ''.join(path.read_text() for path in [*(ROOT / 'configs').glob('*.py'), *parts])
    for part in parts:
        # those for users' own configs: tests/test_docs/test_mixing.py
        assert f'{part.parent.name}/{part.name}' in used or part.parent.name == 'distill'
