"""What student and teacher see: the images of the plain config, in each model's own normalisation."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch.testing import assert_close

from kd_ext.build.detector import model_config
from kd_ext.cli.models import own_model
from kd_ext.teachers.inputs import InputAdapter
from tests.helpers.tiny_detectors import _mmdet, batch, build, fcos, rcka

MEAN, OTHER = [1.0, 2.0, 3.0], [9.0, 9.0, 9.0]
CONFIGS = ('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py')


def runner(cfg, folder, name):
    """MMEngine's Runner, which merges a whole config's data preprocessor into the model."""
    return Runner(
        model=cfg.model,
        data_preprocessor=cfg.data_preprocessor,
        default_scope='mmdet',
        work_dir=str(folder),
        experiment_name=f'{folder.name}_{name}',
        log_level='ERROR',
    )


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('where', ['both', 'top'])
def test_student_sees_what_its_plain_config_shows(name, where, tmp_path):
    plain = Config.fromfile(_mmdet(name))
    assert plain.model.data_preprocessor == plain.data_preprocessor
    plain.model.backbone.init_cfg = None
    if where == 'both':
        plain.model.data_preprocessor = dict(plain.data_preprocessor, mean=MEAN)
    else:
        plain.data_preprocessor.mean = MEAN
        plain.model.pop('data_preprocessor')
    distilled = copy.deepcopy(plain)
    teacher = copy.deepcopy(plain.model)
    teacher.data_preprocessor = dict(type='DetDataPreprocessor', mean=OTHER, std=[2.0] * 3, bgr_to_rgb=True)
    distilled.model = dict(
        type='kd_ext.DetectionDistill',
        student=plain.model.to_dict(),
        teacher=teacher,
        teacher_ckpt='random',
        distill=dict(rcka=rcka()),
    )
    wanted = runner(plain, tmp_path, 'plain').model.data_preprocessor(batch(), True)['inputs']
    model = runner(distilled, tmp_path, 'distilled').model
    seen = model.data_preprocessor(batch(), True)
    assert torch.equal(seen['inputs'], wanted)
    adapted = model.adapters['teacher'](seen['inputs'], seen['data_samples'])
    assert_close(adapted, model.teacher.data_preprocessor(batch(), True)['inputs'], atol=1e-4, rtol=1e-4)


def test_teacher_of_a_config_with_one_at_the_top(tmp_path):
    cfg = Config(dict(model=fcos(), data_preprocessor=dict(type='DetDataPreprocessor', mean=MEAN, std=[1.0] * 3)))
    cfg.model.pop('data_preprocessor')
    cfg.dump(tmp_path / 'teacher.py')
    assert own_model(cfg).data_preprocessor.mean == MEAN
    distilled = dict(type='kd_ext.DetectionDistill', student=dict(fcos()))
    distilled['student'].pop('data_preprocessor')
    Config(dict(model=distilled, data_preprocessor=cfg.data_preprocessor)).dump(tmp_path / 'distilled.py')
    for name in ('teacher', 'distilled'):
        found = model_config(tmp_path / f'{name}.py', 'teacher')
        assert found.data_preprocessor.mean == MEAN and found.type == 'FCOS'


def detector(**changes):
    cfg = fcos()
    cfg.data_preprocessor.update(changes)
    return build(cfg)


def test_padding_of_the_teacher_alone_differs():
    student, teacher = detector(pad_value=0), detector(pad_value=114)
    adapt = InputAdapter(student, teacher)
    seen, wanted = (one.data_preprocessor(batch(), True)['inputs'] for one in (student, teacher))
    before = seen.clone()
    assert not torch.equal(seen, wanted) and not adapt.same
    assert torch.equal(adapt(seen, batch()['data_samples']), wanted)
    assert torch.equal(seen, before)


@pytest.mark.parametrize('changes', [{}, dict(pad_value=7), dict(mean=MEAN, std=[2.0] * 3, bgr_to_rgb=False)])
def test_a_batch_that_is_resized(changes, monkeypatch):
    monkeypatch.setitem(MessageHub.get_current_instance().runtime_info, 'iter', 0)
    augments = [dict(type='BatchSyncRandomResize', random_size_range=(160, 160), interval=1)]
    student = detector(batch_augments=augments, pad_value=114)
    teacher = detector(batch_augments=augments, **changes)
    adapt = InputAdapter(student, teacher)
    for resized in (False, True):
        seen, wanted = (one.data_preprocessor(batch(), True) for one in (student, teacher))
        assert tuple(seen['inputs'].shape[2:]) == ((160, 224) if resized else (64, 96))
        adapted = adapt(seen['inputs'], seen['data_samples'])
        for image, like, sample in zip(adapted, wanted['inputs'], wanted['data_samples']):
            height, width = sample.img_shape
            # resizing blends pad values into the last pixels of an image and the first of its padding
            inside = image[:, : height - 3, : width - 3], like[:, : height - 3, : width - 3]
            assert_close(*inside, atol=1e-3, rtol=1e-4)
            assert image[:, height:].numel() or image[:, :, width:].numel() or sample.img_id == 0
            for part in (image[:, height + 3 :], image[:, :, width + 3 :]):
                assert bool((part == changes.get('pad_value', 0)).all())
